"""Response of an upstream, whose head is in and whose body flows into a sink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from twisted.web._newclient import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from stream_proxy.errors import APIError
from stream_proxy.http.headers import RawHeader
from stream_proxy.transport.timers import Timeout
from stream_proxy.upstream.failures import body_failure

#: Seconds in which an upstream may end a body that is not needed, so that its connection can be reused.
DRAIN_SECONDS = 1.0


class Connection(Protocol):
    """Connection that a response comes on."""

    #: It has ended.
    is_gone: bool
    #: It ended otherwise than by an orderly close.
    torn: bool
    transport: Any


class BodySink(Protocol):
    """Consumer of the body of a response."""

    def body_received(self, data: bytes) -> None:
        """Take bytes as they came."""

    def body_ended(self, error: APIError | None) -> None:
        """Take the end, once: ``None`` if the body ended as its framing promised."""


class UpstreamResponse(TwistedProtocol):
    """Response whose head is in.

    ``status`` (int), ``reason`` (bytes), ``headers`` (the fields that may travel, as they came), ``length``
    (bytes of the body that the head promises, ``None`` if it promises none).

    The body goes to a :class:`BodySink`, which may be replaced while it flows.
    """

    transport: Any

    def __init__(
        self, response: IResponse, headers: list[RawHeader], connection: Connection | None, host: str
    ):
        self.status: int = response.code
        self.reason: bytes = response.phrase
        self.headers = headers
        self.length: int | None = response.length if isinstance(response.length, int) else None
        #: The body has begun to flow.
        self.started = False
        #: The body has ended; and the reason, if not as it should have.
        self.ended = False
        self.error: APIError | None = None
        self.sink: BodySink | None = None
        self._response = response
        self._connection = connection
        self._host = host

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of the fields called `name` (lower case)."""
        return [value for field, value in self.headers if field.lower() == name]

    def start(self, sink: BodySink) -> None:
        """Let the body flow into `sink`, which may be called before this returns."""
        self.sink = sink
        self.started = True
        self._response.deliverBody(self)

    def pause(self) -> None:
        """Pause the body."""
        if not self.ended and self.transport is not None:
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Resume the body."""
        if not self.ended and self.transport is not None:
            self.transport.resumeProducing()

    def abort(self) -> None:
        """Drop the connection at once, over TLS too. The sink is called no more."""
        if not self.ended:
            self.ended = True
            self.hang_up()

    def hang_up(self) -> None:
        """Drop the connection even if the body is whole: the upstream may wait for the rest of an upload."""
        self.sink = None
        if self._connection is not None:
            if not self._connection.is_gone:  # over TLS, a connection that is gone must not be aborted
                self._connection.transport.abortConnection()
        elif self.transport is not None:
            self.transport.stopProducing()

    def dataReceived(self, data: bytes) -> None:
        if self.sink is not None:
            self.sink.body_received(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self.ended:
            return
        self.ended = True
        torn = self._connection is not None and self._connection.torn
        if not reason.check(ResponseDone) and (torn or not reason.check(PotentialDataLoss)):
            self.error = body_failure(reason, self._host)
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
