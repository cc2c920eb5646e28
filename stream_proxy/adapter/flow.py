"""Flow of one chat completion, made out of a service's stream while that arrives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from uuid import uuid4

from stream_proxy.adapter.chat_request import ChatRequest
from stream_proxy.adapter.dialect import Dialect
from stream_proxy.adapter.output import JSONOutput, StreamOutput
from stream_proxy.adapter.service_error import REFUSAL_BYTES, refusal
from stream_proxy.adapter.translation import Step, Translation
from stream_proxy.downstream.response import is_taking
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, compressed_data_cut, upstream_error, upstream_silent
from stream_proxy.flows.capturing import seen
from stream_proxy.flows.content_clock import ContentClock
from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.pacing import PacedBody
from stream_proxy.flows.upstream_call import UpstreamCall
from stream_proxy.http.body_kind import media_type
from stream_proxy.http.content_coding import ContentDecoder, content_codings, decoder_for
from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.record import Phase, Record
from stream_proxy.observe.usage import usage_of
from stream_proxy.request_log import Outcome
from stream_proxy.upstream.response import UpstreamResponse

# Bound of what one read decodes to: text is not compressed more than this, and more is neither held nor
# written while others wait.
_MOST_DECODED, _MOST_RATIO = 65_536, 64
# Chunks are handed on together until their work is that of so many bytes: a write each would be dear, and a
# turn must not be over before anything was written.
_STEP_BYTES = 65_536
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
        self.dialect = dialect
        self._chat = chat
        self._headers = exchange.own_headers
        self._content: ContentDecoder | None = None
        self._body: PacedBody | None = None
        #: None for a response that is an error by its status; the start of its body goes to `_error_body`.
        self._translation: Translation | None = None
        self._error_body = bytearray()
        self._output: StreamOutput | JSONOutput | None = None

    def begin(self) -> None:
        self.record.name_model(self._chat.model)
        call = self.dialect.request(self._chat.body, self.exchange.fields)
        if self.content is not None:
            self.content.start()
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
        read = seen(self.record, response, self._read)
        body = self._body = PacedBody(self.exchange.clock, response, read, self._body_ended, self.broken)
        if success:
            self._translate(response, body)
        response.start(body)

    def _translate(self, response: UpstreamResponse, body: PacedBody) -> None:
        chat = self._chat
        self._translation = self.dialect.translation(
            media_type(response.values(b"content-type")),
            (f"chatcmpl-{uuid4().hex}", int(self.exchange.clock.seconds()), chat.model),
            include_usage=chat.include_usage or not chat.stream,
            max_bytes=self.limits.max_response_bytes,
            stream=chat.stream,
            max_event_bytes=self.limits.max_event_bytes,
            max_values=self.limits.max_response_values,
        )
        if chat.stream:
            self._output = StreamOutput(self.request, self._headers, body, self.touch)
        else:
            self._output = JSONOutput(self.request, self._headers, self.exchange.clock, self.limits)

    # The body, read by read

    def _read(self, data: bytes) -> Iterator[int]:
        """Yield the steps of the work on a part of the service's body, as it came."""
        now, record = self.touch(), self.record
        record.read += len(data)
        most = _MOST_DECODED + _MOST_RATIO * len(data)
        try:
            for piece in self._content.pieces(data) if self._content is not None else ():
                most -= len(piece)
                if most < 0:
                    raise upstream_error(
                        "The service's compressed answer decodes to far more than a text does.",
                        ErrorCode.DECODED_TOO_LARGE,
                        should_retry=False,
                    )
                if self._translation is None:
                    self._take_refusal(piece)
                else:
                    yield from self._take(self._translation.steps(piece))
                    _note_events(record, self._translation, now, self.content)
        except APIError:
            if self._translation is not None:
                raise
            self._fail_as_service()

    def _body_ended(self, error: APIError | None) -> Iterator[int]:
        """Yield the steps of the work on the end of the service's body."""
        if self._translation is None:
            self._fail_as_service()  # a status is a response even without all of its body
        elif error is not None:
            raise error
        elif self._content is not None and not self._content.ended:
            raise compressed_data_cut("service")
        else:
            yield from self._take(self._translation.last_steps(), ended=True)

    def _take_refusal(self, piece: bytes) -> None:
        """Hold the beginning of an error's body."""
        self._error_body += piece
        if len(self._error_body) >= REFUSAL_BYTES:
            self._fail_as_service()

    def _take(self, steps: Iterator[Step], *, ended: bool = False) -> Iterator[int]:
        """Hand on the chunks that a translation makes, those of some steps at once."""
        translation, output = self._translation, self._output
        assert translation is not None and output is not None
        done = 0
        try:
            for cost, chunk in steps:
                if chunk:
                    yield from output.take(chunk)
                done += cost
                if done >= _STEP_BYTES:
                    output.flush()
                    yield done
                    done = 0
                    self.touch()
        except Exception:
            output.flush()
            _warn(self, translation.remarks() if ended or translation.complete else [])
            raise
        output.flush()
        if ended or translation.complete:
            _warn(self, translation.remarks())
        if translation.complete:
            _note_events(self.record, translation, self.exchange.clock.seconds())
            for cost in output.steps():
                yield cost
                self.touch()
            self._complete(output)
        else:
            yield done

    def _complete(self, output: StreamOutput | JSONOutput) -> None:
        """Send what is left of the response; that may take the client long."""
        self.stop_waiting()
        self._stop_reading()
        self.drain()
        output.complete(lambda: self.close(Outcome(200, self.sent)))

    def _fail_as_service(self) -> None:
        """Fail with the error that the service reported by its status."""
        assert self.response is not None
        origin = self.upstream.url.origin
        self.fail(refusal(self.response.status, bytes(self._error_body), self.dialect.reader, origin))

    def fail(self, error: APIError, headers: Iterable[RawHeader] = ()) -> None:
        if self.ended:
            return
        error = error.redacted(self._redacted)
        output = self._output
        if isinstance(output, StreamOutput) and output.begun:
            output.fail(error)
            self.close(Outcome(200, self.sent, error.for_log, code=str(error.code)))
            return
        upstreams = self.response.headers if self.response is not None else ()
        retry = [(name, value) for name, value in upstreams if name.lower() in _RETRY]
        super().fail(error, (*self._headers, *headers, *retry))

    @property
    def waits_for_client(self) -> bool:
        return isinstance(self._output, StreamOutput) and self._output.paused

    def silent(self) -> None:
        output = self._output
        if not isinstance(output, StreamOutput) or not self.waits_for_client:
            super().silent()
        elif is_taking(self.request):
            self.touch()  # the service waits for a client that is slow
        else:
            output.break_off()
            seconds = self.limits.timeout_seconds
            self.close(Outcome(200, self.sent, f"the client took nothing for {seconds:g} seconds"))

    def release(self) -> None:
        super().release()
        self._stop_reading()
        if self._output is not None:
            self._output.release()

    def _stop_reading(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.stop()

    def _redacted(self, text: str) -> str:
        return self.upstream.access.redacted(self.dialect.redacted(text))


def _note_events(
    record: Record, translation: Translation, now: float | None, content: ContentClock | None = None
) -> None:
    """Note what has come, and once the response is complete its usage."""
    events = translation.content_payloads
    if content is not None:
        content.count(events)
    if events > record.events:
        record.last_event = now
        if record.first_event is None:
            record.first_event, record.phase = now, Phase.STREAMING
        record.events = events
    if translation.complete:
        record.usage = usage_of(translation.usage)


def _warn(call: AdapterCall, remarks: list[str]) -> None:
    """Log what the rule's configuration seems to have wrong, each remark once for the rule."""
    for remark in call.dialect.unsaid(remarks):
        call.exchange.log.warn(f"{call.upstream.url.origin}: {remark}")
