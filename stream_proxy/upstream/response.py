"""Response of an upstream, whose head is in and whose body flows into a sink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from stream_proxy.errors import APIError
from stream_proxy.http.headers import RawHeader
from stream_proxy.transport.eager_write import LARGE_READ_BYTES, allow_reads
from stream_proxy.transport.timers import Timeout
from stream_proxy.upstream.failures import body_failure

#: Seconds in which an upstream may end a body that is not needed, so that its connection can be reused.
DRAIN_SECONDS = 1.0


class BodySource(Protocol):
    """Connection that a body comes on, as long as it belongs to this response."""

    transport: Any

    def pause(self) -> None:
        """Read nothing for now."""

    def resume(self) -> None:
        """Read; at first this is called when the body is wanted."""

    def drop(self) -> None:
        """End the connection at once, over TLS too."""


class BodySink(Protocol):
    """Consumer of the body of a response."""

    def body_received(self, data: bytes) -> None:
        """Take bytes as they came."""

    def body_ended(self, error: APIError | None) -> None:
        """Take the end, once: ``None`` if the body ended as its framing promised."""


class UpstreamResponse:
    """Response whose head is in.

    The body goes to a :class:`BodySink`, which may be replaced while it flows. What comes before
    :meth:`start` is held, and the connection is paused meanwhile.

    :param headers: the fields that may travel, as they came.
    :param length: bytes of the body that the head promises, ``None`` if it promises none.
    :param source: the connection.
    :param origin: the upstream's, for errors.
    :param arrived: the whole body has come with the head, and follows in the same turn of the reactor.
    """

    __slots__ = (
        "__weakref__",
        "_held",
        "_origin",
        "_over",
        "_paused",
        "_reads_much",
        "_source",
        "arrived",
        "ended",
        "error",
        "headers",
        "length",
        "reason",
        "sink",
        "started",
        "status",
    )

    def __init__(
        self,
        status: int,
        reason: bytes,
        headers: list[RawHeader],
        length: int | None,
        source: BodySource,
        origin: str,
        *,
        arrived: bool = False,
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.length = length
        self.arrived = arrived
        #: The body has begun to flow.
        self.started = False
        #: The body has ended; and the reason, if not as it should have.
        self.ended = False
        self.error: APIError | None = None
        self.sink: BodySink | None = None
        self._source: BodySource | None = source
        self._origin = origin
        self._held: list[bytes] | None = None
        self._over = False  # the end has come, and is held
        self._reads_much = False
        self._paused = False

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of the fields called `name` (lower case)."""
        return [value for field, value in self.headers if field.lower() == name]

    def start(self, sink: BodySink) -> None:
        """Let the body flow into `sink`, which may be called before this returns."""
        self.sink = sink
        self.started = True
        held, self._held = self._held, None
        for data in held or ():
            if self.sink is not None:
                self.sink.body_received(data)
        if self._over:
            self._end()
        elif self._source is not None and not self._paused:
            self._source.resume()

    def read_much(self) -> None:
        """Read a large body of known length, which is passed on as it is, in larger pieces."""
        if self.length is not None and self.length > LARGE_READ_BYTES and self._source is not None:
            self._reads_much = True
            allow_reads(self._source.transport, self.length)

    def pause(self) -> None:
        """Pause the body."""
        self._paused = True
        if not self.ended and self._source is not None:
            self._source.pause()

    def resume(self) -> None:
        """Resume the body."""
        self._paused = False
        if self.started and not self.ended and self._source is not None:
            self._source.resume()

    def abort(self) -> None:
        """Drop the connection at once, over TLS too. The sink is called no more."""
        if not self.ended:
            self.ended = True
            self.hang_up()

    def hang_up(self) -> None:
        """Drop the connection even if the body is whole: the upstream may wait for the rest of an upload."""
        self.sink = None
        self._held = None
        source, self._source = self._source, None
        if source is not None:
            source.drop()

    # For the source

    def body_received(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self.sink is not None:
            self.sink.body_received(data)
        elif self._held is not None:
            self._held.append(data)
        elif not self.started and not self.ended:
            self._held = [data]
            if self._source is not None:
                self._source.pause()

    def body_ended(self, failure: Failure | None = None) -> None:
        """Take the end of the body, or the reason why it does not come."""
        if self.ended or self._over:
            return
        if failure is not None:
            self.error = body_failure(failure, self._origin)
        self._over = True
        if self.started:
            self._end()

    def let_go(self) -> None:
        """Forget the source, which is somebody else's from now on, or gone."""
        source, self._source = self._source, None
        if self._reads_much and source is not None:
            allow_reads(source.transport, 0)

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.body_ended(self.error)


class Drain:
    """Response that is read to its end for the sake of its connection."""

    def __init__(
        self, clock: IReactorTime, response: UpstreamResponse, done: Callable[[Drain], None]
    ) -> None:
        self._response = response
        self._done = done
        self._timeout = Timeout(clock)
        self._timeout.start(DRAIN_SECONDS, self.stop)
        response.sink = self
        response.resume()

    def body_received(self, data: bytes) -> None:
        pass

    def body_ended(self, error: APIError | None) -> None:
        self.stop()

    def stop(self) -> None:
        self._timeout.stop()
        self._response.abort()
        self._done(self)
