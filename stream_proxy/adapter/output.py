"""Output of an adapter's chat completion: an event stream while its chunks arrive, or one JSON at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.web.server import Request
from zope.interface import implementer

from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.sse import ServerSentEvent
from stream_proxy.downstream.heartbeat import Heartbeat
from stream_proxy.downstream.response import break_off, start_response
from stream_proxy.errors import APIError
from stream_proxy.flows.pacing import PacedBody
from stream_proxy.http.headers import RawHeader
from stream_proxy.limits import Limits

_STREAM_HEAD = (
    (b"Content-Type", b"text/event-stream; charset=utf-8"),
    (b"Cache-Control", b"no-cache"),
    (b"X-Accel-Buffering", b"no"),  # nginx would hold events back until its buffer is full
)
_DONE = b"[DONE]"


@implementer(IPushProducer)
class StreamOutput:
    """Event stream whose head goes out with the first chunk, and whose client paces the service.

    :param request: the client's request.
    :param headers: fields beside those of the stream.
    :param body: the body of the service's response.
    :param touched: called when the client reads again.
    """

    def __init__(
        self,
        request: Request,
        headers: Iterable[RawHeader],
        body: PacedBody,
        touched: Callable[[], object],
    ) -> None:
        self._request = request
        self._headers = (*_STREAM_HEAD, *headers)
        # Given up with the call, which the body refers to and which owns this output.
        self._body: PacedBody | None = body
        self._touched: Callable[[], object] | None = touched
        self._events: list[bytes] = []
        self.begun = False
        self.paused = False
        #: Bytes of the body that went out.
        self.sent = 0

    def take(self, chunk: bytes) -> Iterable[int]:
        """Add a chunk to those that are sent next; no work on it is left to do."""
        self._events.append(_event(chunk))
        return ()

    def flush(self) -> None:
        """Send the chunks that were taken with one write."""
        if self._events:
            events, self._events = self._events, []
            self._write(b"".join(events))

    def steps(self) -> Iterable[int]:
        """Return no steps: nothing is left to do before the end."""
        return ()

    def complete(self, whole: Callable[[], None]) -> None:
        """End the stream, and call `whole`."""
        self.take(_DONE)
        self.flush()
        self._finish()
        whole()

    def fail(self, error: APIError) -> None:
        """End the stream with an error as its last event, and no ``[DONE]`` after it."""
        self.take(error.envelope())
        self.flush()
        self._finish()

    def break_off(self) -> None:
        """End the stream so that the client sees that it is not complete."""
        if self._request.channel is not None:
            self._request.unregisterProducer()
            break_off(self._request)

    def release(self) -> None:
        """Pace the service no more; the call has ended."""
        self._touched = self._body = None

    def pauseProducing(self) -> None:
        self.paused = True
        if self._body is not None:
            self._body.pause()

    def resumeProducing(self) -> None:
        self.paused = False
        if self._touched is not None and self._body is not None:
            self._touched()
            self._body.resume()

    def stopProducing(self) -> None:
        """Do nothing: the flow hears of a lost client from its request."""

    def _write(self, data: bytes) -> None:
        if not self.begun:
            self.begun = True
            start_response(self._request, 200, None, self._headers)
            self._request.registerProducer(self, True)
        self.sent += len(data)
        self._request.write(data)

    def _finish(self) -> None:
        if self._request.channel is not None:
            self._request.unregisterProducer()
            self._request.finish()


class JSONOutput:
    """Chat completion that is put together and sent whole.

    :param request: the client's request.
    :param headers: fields beside those of the JSON.
    :param clock: the reactor.
    :param limits: those of the rule.
    """

    begun = False
    paused = False

    def __init__(
        self, request: Request, headers: Iterable[RawHeader], clock: IReactorTime, limits: Limits
    ) -> None:
        self._headers = headers
        # Of a heartbeat that never beats: it sends a large body in pieces.
        self._response = Heartbeat(clock, request, (0, 0), _never, _never)
        self._completion = ChatCompletionsAccumulator(
            max_bytes=limits.max_response_bytes, max_values=limits.max_response_values
        )
        self._completion.by_steps = True

    @property
    def sent(self) -> int:
        """Bytes of the body that went out."""
        return self._response.sent

    def take(self, chunk: bytes) -> Iterable[int]:
        """Add a chunk to the completion, and return the steps of the work that is left to do on it."""
        return self._completion.feed_long(ServerSentEvent(data=chunk))

    def flush(self) -> None:
        """Do nothing: all of it is sent at the end."""

    def steps(self) -> Iterable[int]:
        """Put the completion together, and yield what each step cost."""
        self._completion.feed(ServerSentEvent(data=_DONE))
        yield from self._completion.steps()

    def complete(self, whole: Callable[[], None]) -> None:
        """Send the completion, and call `whole` once all of it is written."""
        pieces = self._completion.result_pieces()
        if len(pieces) > 1:
            self._response.respond_in_pieces(200, None, self._headers, pieces, whole)
        else:
            self._response.respond(200, None, self._headers, b"".join(pieces))
            whole()

    def release(self) -> None:
        """Send no more; the call has ended."""
        self._response.stop()


def _never() -> None:
    """Stand for what a heartbeat that never beats would do."""


def _event(data: bytes) -> bytes:
    return b"data: %b\n\n" % data
