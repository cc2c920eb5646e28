"""One chat completion, made out of a service's stream while that arrives."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from stream_proxy.adapter.chat_request import ChatRequest
from stream_proxy.adapter.dialect import Dialect
from stream_proxy.adapter.service_error import REFUSAL_BYTES, refusal
from stream_proxy.adapter.translation import Translation
from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.sse import ServerSentEvent
from stream_proxy.downstream.response import break_off, is_taking, respond, respond_error, start_response
from stream_proxy.errors import APIError, internal_error, upstream_error, upstream_timeout
from stream_proxy.http.body_kind import media_type
from stream_proxy.http.content_coding import ContentDecoder, content_codings, decoder_for
from stream_proxy.http.headers import RawHeader
from stream_proxy.limits import Limits
from stream_proxy.request_log import Outcome, RequestLog
from stream_proxy.transport.idle_timer import IdleTimer
from stream_proxy.upstream.client import Upstream
from stream_proxy.upstream.response import UpstreamResponse

_STREAM_HEAD = (
    (b"Content-Type", b"text/event-stream; charset=utf-8"),
    (b"Cache-Control", b"no-cache"),
    (b"X-Accel-Buffering", b"no"),  # nginx would gather events
)
_DONE = b"[DONE]"
# What the bytes of one read may decode to: a text is not compressed more than so, and what would be more is
# neither held nor written while others wait.
_MOST_DECODED, _MOST_RATIO = 65_536, 64
# What a service says with an error about trying again.
_RETRY = (b"retry-after", b"retry-after-ms")


@implementer(IPushProducer)
class AdapterCall:
    """One chat completion.

    :param request: the client's.
    :param upstream: the service.
    :param dialect: how to talk with it.
    :param asked: what the client wants.
    :param headers: what goes out with every answer.
    """

    how = "adapted"

    def __init__(
        self,
        clock: IReactorTime,
        request: Request,
        upstream: Upstream,
        dialect: Dialect,
        asked: ChatRequest,
        headers: tuple[RawHeader, ...],
        limits: Limits,
        log: RequestLog,
    ) -> None:
        #: Fires once with how it ended.
        self.done: Deferred[Outcome] = Deferred()
        self._clock = clock
        self._request = request
        self._upstream = upstream
        self._dialect = dialect
        self._asked = asked
        self._headers = headers
        self._limits = limits
        self._log = log
        self._timer: IdleTimer | None = None
        self._asking: Deferred[UpstreamResponse] | None = None
        self._response: UpstreamResponse | None = None
        self._content: ContentDecoder | None = None
        self._translation: Translation | None = None
        self._answer: ChatCompletionsAccumulator | None = None
        self._refused = bytearray()
        self._begun = False
        self._paused = False
        self._sent = 0

    def start(self) -> None:
        """Call the service."""
        self._timer = IdleTimer(self._clock, self._limits.timeout_seconds, self._silent)
        authorization = self._request.requestHeaders.getRawHeaders(b"authorization") or []
        try:
            call = self._dialect.request(self._asked.body, authorization)
        except APIError as error:
            self._fail(error)
            return
        asking = self._asking = self._upstream.request(call.method, call.target, call.headers, call.body)
        asking.addCallbacks(self._answered, self._failed)
        asking.addErrback(self._bug)

    def cancel(self) -> None:
        """The client has gone: so goes the call of the service."""
        self._close(Outcome.gone(self._sent))

    # Backpressure: the client's connection pauses the service's.

    def pauseProducing(self) -> None:
        self._paused = True
        if self._response is not None:
            self._response.pause()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._timer is not None:
            self._timer.touch()
        if self._response is not None:
            self._response.resume()

    def stopProducing(self) -> None:
        """The client's connection is going; whoever watches the request ends this."""

    # The service's answer

    def _answered(self, response: UpstreamResponse) -> None:
        if self._timer is None:
            return
        self._timer.touch()
        self._asking = None
        self._response = response
        codings = content_codings(response.values(b"content-encoding"))
        self._content = decoder_for(codings, self._limits.max_decoded_bytes)
        if self._content is None:
            if not 200 <= response.status < 300:
                self._refuse()
                return
            raise upstream_error("The service compressed its answer in a way that the proxy cannot decode.")
        if 200 <= response.status < 300:
            identity = (f"chatcmpl-{uuid4().hex}", int(self._clock.seconds()), self._asked.model)
            self._translation = self._dialect.translation(
                media_type(response.values(b"content-type")),
                identity,
                include_usage=self._asked.include_usage or not self._asked.stream,
                max_bytes=self._limits.max_response_bytes,
            )
            if not self._asked.stream:
                self._answer = ChatCompletionsAccumulator(max_bytes=self._limits.max_response_bytes)
        response.start(self)

    def _failed(self, failure: Failure) -> None:
        self._asking = None
        if not failure.check(CancelledError):
            self._bug(failure)

    def body_received(self, data: bytes) -> None:
        """The service's body, as it came."""
        if self._timer is None or self._content is None:
            return
        self._timer.touch()
        most = _MOST_DECODED + _MOST_RATIO * len(data)
        try:
            for piece in self._content.pieces(data):
                most -= len(piece)
                if most < 0:
                    raise upstream_error(
                        "The service's compressed answer decodes to far more than a text does."
                    )
                if self._translation is None:
                    self._refused += piece
                    if len(self._refused) >= REFUSAL_BYTES:
                        self._refuse()
                else:
                    self._take(self._translation.feed(piece))
                if self._timer is None:
                    return
        except APIError as error:
            if self._translation is None:
                self._refuse()
            else:
                self._fail(error)
        except Exception:
            self._bug(Failure())

    def body_ended(self, error: APIError | None) -> None:
        """The service's body has ended."""
        if self._timer is None:
            return
        try:
            if self._translation is None:
                self._refuse()  # a status is an answer even without all of its body
            elif error is not None:
                self._fail(error)
            elif self._content is not None and not self._content.ended:
                self._fail(upstream_error("The service's compressed answer was cut off."))
            else:
                self._take(self._translation.end())
        except Exception:
            self._bug(Failure())

    def _take(self, chunks: Iterator[bytes]) -> None:
        """Pass on chunks, those of one read with one write; an error after some comes after those."""
        written: list[bytes] = []
        try:
            for chunk in chunks:
                if self._answer is None:
                    written.append(b"data: %b\n\n" % chunk)
                else:
                    self._answer.feed(ServerSentEvent(data=chunk))
        finally:
            if written:
                self._write(b"".join(written))
        if self._translation is not None and self._translation.complete:
            self._complete()

    def _write(self, data: bytes) -> None:
        request = self._request
        if not self._begun:
            self._begun = True
            start_response(request, 200, None, (*_STREAM_HEAD, *self._headers))
            request.registerProducer(self, True)
        self._sent += len(data)
        request.write(data)

    # The end

    def _complete(self) -> None:
        assert self._response is not None
        if self._answer is None:
            self._write(b"data: %b\n\n" % _DONE)
            self._finish()
        else:
            self._answer.feed(ServerSentEvent(data=_DONE))
            body = self._answer.result_bytes()
            self._sent = len(body)
            respond(self._request, 200, None, self._headers, body)
        self._upstream.drain(self._response)
        self._close(Outcome(200, self._sent))

    def _refuse(self) -> None:
        assert self._response is not None
        origin = self._upstream.url.origin
        self._fail(refusal(self._response.status, bytes(self._refused), self._dialect.reader, origin))

    def _fail(self, error: APIError) -> None:
        """Answer with an error; once chunks are out, it is the last chunk, and no [DONE] follows."""
        if self._timer is None:
            return
        self._redact(error)
        if self._begun:
            self._write(b"data: %b\n\n" % error.envelope())
            self._finish()
            self._close(Outcome(200, self._sent, error.for_log))
            return
        told = self._response.headers if self._response is not None else ()
        retry = [(name, value) for name, value in told if name.lower() in _RETRY]
        if self._request.channel is not None:
            respond_error(self._request, error, (*self._headers, *retry))
        self._close(Outcome.failed(error, len(error.envelope())))

    def _redact(self, error: APIError) -> None:

        def redacted(text: str) -> str:
            return self._upstream.access.redacted(self._dialect.redacted(text))

        error.message, error.type, error.for_log = map(redacted, (error.message, error.type, error.for_log))
        error.param = None if error.param is None else redacted(error.param)
        error.code = redacted(error.code) if isinstance(error.code, str) else error.code

    def _bug(self, failure: Failure) -> None:
        """What went wrong: an error of the service's, or else a bug of ours."""
        if isinstance(failure.value, APIError):
            self._fail(failure.value)
        else:
            self._log.bug(failure)
            self._fail(internal_error())

    def _silent(self) -> None:
        seconds = self._limits.timeout_seconds
        if self._paused and is_taking(self._request):
            if self._timer is not None:
                self._timer.touch()  # the service waits for a client that is slow
        elif self._paused:
            if self._request.channel is not None:
                self._request.unregisterProducer()
                break_off(self._request)
            self._close(Outcome(200, self._sent, f"the client took nothing for {seconds:g} seconds"))
        else:
            what = f"The service sent nothing for {seconds:g} seconds"
            queued = self._upstream.queue_error(self._asking, seconds)
            self._fail(queued or upstream_timeout(f"{what}; ask for less, or raise timeoutSeconds."))

    def _finish(self) -> None:
        if self._request.channel is not None:
            self._request.unregisterProducer()
            self._request.finish()

    def _close(self, outcome: Outcome) -> None:
        timer, self._timer = self._timer, None
        if timer is None:
            return
        timer.stop()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
        # What is being drained has an owner; anything else ends here.
        if self._response is not None and self._response.sink in (self, None):
            self._response.abort()
        self.done.callback(outcome)
