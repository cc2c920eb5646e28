"""Flow of one chat completion, made out of a service's stream while that arrives."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import uuid4

from twisted.python.failure import Failure

from stream_proxy.adapter.chat_request import ChatRequest
from stream_proxy.adapter.dialect import Dialect
from stream_proxy.adapter.output import JSONOutput, StreamOutput
from stream_proxy.adapter.service_error import REFUSAL_BYTES, refusal
from stream_proxy.adapter.translation import Translation
from stream_proxy.downstream.response import is_taking
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, compressed_data_cut, upstream_error, upstream_silent
from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.upstream_call import UpstreamCall
from stream_proxy.http.body_kind import media_type
from stream_proxy.http.content_coding import ContentDecoder, content_codings, decoder_for
from stream_proxy.http.headers import RawHeader
from stream_proxy.request_log import Outcome
from stream_proxy.upstream.response import UpstreamResponse

# Bound of what one read decodes to: text is not compressed more than this, and more is neither held nor
# written while others wait.
_MOST_DECODED, _MOST_RATIO = 65_536, 64
# Fields of a service's error that say when to try again.
_RETRY = (b"retry-after", b"retry-after-ms")


class AdapterCall(UpstreamCall):
    """One chat completion.

    :param exchange: the request.
    :param dialect: how to talk with the service.
    :param chat: the parsed request.
    """

    mode = "adapted"

    def __init__(self, exchange: Exchange, dialect: Dialect, chat: ChatRequest) -> None:
        super().__init__(exchange)
        self._dialect = dialect
        self._chat = chat
        self._headers = exchange.own_headers
        self._content: ContentDecoder | None = None
        #: None for a response that is an error by its status; the start of its body goes to `_error_body`.
        self._translation: Translation | None = None
        self._error_body = bytearray()
        self._output: StreamOutput | JSONOutput | None = None

    def begin(self) -> None:
        call = self._dialect.request(self._chat.body, self.exchange.fields)
        self.ask(call.method, call.target, call.headers, call.body)

    @property
    def sent(self) -> int:
        return self._output.sent if self._output is not None else 0

    @property
    def silence(self) -> APIError:
        return upstream_silent(self.limits.timeout_seconds, "service")

    def responded(self, response: UpstreamResponse) -> None:
        success = 200 <= response.status < 300
        codings = content_codings(response.values(b"content-encoding"))
        self._content = decoder_for(codings, self.limits.max_decoded_bytes)
        if self._content is None:
            if not success:
                self._fail_as_service()
                return
            raise upstream_error(
                "The service compressed its answer in a way that the proxy cannot decode.",
                ErrorCode.UPSTREAM_ENCODING,
            )
        if success:
            self._translate(response)
        response.start(self)

    def _translate(self, response: UpstreamResponse) -> None:
        chat = self._chat
        self._translation = self._dialect.translation(
            media_type(response.values(b"content-type")),
            (f"chatcmpl-{uuid4().hex}", int(self.exchange.clock.seconds()), chat.model),
            include_usage=chat.include_usage or not chat.stream,
            max_bytes=self.limits.max_response_bytes,
            stream=chat.stream,
            max_event_bytes=self.limits.max_event_bytes,
            max_values=self.limits.max_response_values,
        )
        if chat.stream:
            self._output = StreamOutput(self.request, self._headers, response, self.touch)
        else:
            self._output = JSONOutput(self.request, self._headers, self.limits)

    def body_received(self, data: bytes) -> None:
        """Take a part of the service's body, as it came."""
        if self.ended or self._content is None:
            return
        self.touch()
        most = _MOST_DECODED + _MOST_RATIO * len(data)
        try:
            for piece in self._content.pieces(data):
                most -= len(piece)
                if most < 0:
                    raise upstream_error(
                        "The service's compressed answer decodes to far more than a text does.",
                        ErrorCode.DECODED_TOO_LARGE,
                        should_retry=False,
                    )
                self._take(piece)
                if self.ended:
                    return
        except APIError as error:
            if self._translation is None:
                self._fail_as_service()
            else:
                self.fail(error)
        except Exception:
            self.bug(Failure())

    def body_ended(self, error: APIError | None) -> None:
        """Take the end of the service's body."""
        if self.ended:
            return
        try:
            if self._translation is None:
                self._fail_as_service()  # a status is a response even without all of its body
            elif error is not None:
                self.fail(error)
            elif self._content is not None and not self._content.ended:
                self.fail(compressed_data_cut("service"))
            else:
                self._take(None)
        except Exception:
            self.broken(Failure())

    def _take(self, piece: bytes | None) -> None:
        """Translate a decoded piece, or with ``None`` the end."""
        translation, output = self._translation, self._output
        if translation is None or output is None:
            self._error_body += piece or b""
            if len(self._error_body) >= REFUSAL_BYTES:
                self._fail_as_service()
            return
        try:
            output.take(translation.end() if piece is None else translation.feed(piece))
        finally:
            if piece is None or translation.complete:
                self._warn(translation.remarks())
        if translation.complete:
            output.complete()
            self.drain()
            self.close(Outcome(200, self.sent))

    def _warn(self, remarks: list[str]) -> None:
        """Log what the rule's configuration seems to have wrong, each remark once for the rule."""
        for remark in self._dialect.unsaid(remarks):
            self.exchange.log.warn(f"{self.upstream.url.origin}: {remark}")

    def _fail_as_service(self) -> None:
        """Fail with the error that the service reported by its status."""
        assert self.response is not None
        origin = self.upstream.url.origin
        self.fail(refusal(self.response.status, bytes(self._error_body), self._dialect.reader, origin))

    def fail(self, error: APIError, headers: Iterable[RawHeader] = ()) -> None:
        if self.ended:
            return
        error = error.redacted(self._redacted)
        output = self._output
        if isinstance(output, StreamOutput) and output.begun:
            output.fail(error)
            self.close(Outcome(200, self.sent, error.for_log))
            return
        upstreams = self.response.headers if self.response is not None else ()
        retry = [(name, value) for name, value in upstreams if name.lower() in _RETRY]
        super().fail(error, (*self._headers, *headers, *retry))

    def silent(self) -> None:
        output = self._output
        if not isinstance(output, StreamOutput) or not output.paused:
            super().silent()
        elif is_taking(self.request):
            self.touch()  # the service waits for a client that is slow
        else:
            output.break_off()
            seconds = self.limits.timeout_seconds
            self.close(Outcome(200, self.sent, f"the client took nothing for {seconds:g} seconds"))

    def release(self) -> None:
        super().release()
        if isinstance(self._output, StreamOutput):
            self._output.release()

    def _redacted(self, text: str) -> str:
        return self.upstream.access.redacted(self._dialect.redacted(text))
