"""Sending an answer at its pace, for as long as somebody listens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from stream_proxy.mock.wire import Ending, Reply

_BATCH = 64
"""Events written per turn of the reactor when there is no pace: more would keep other clients waiting."""


class _ServerRequest(Protocol):
    """What a `Delivery` needs of a `twisted.web.server.Request`, which has no annotations."""

    def notifyFinish(self) -> Deferred[None]: ...
    def setResponseCode(self, code: int) -> None: ...
    def setHeader(self, name: str, value: str) -> None: ...
    def write(self, data: bytes) -> None: ...
    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def finish(self) -> None: ...
    def loseConnection(self) -> None: ...


@implementer(IPushProducer)
class Delivery:
    """One answer on its way. It owns the timer and the iterator; the client's leaving ends both."""

    def __init__(
        self, reactor: IReactorTime, request: _ServerRequest, reply: Reply, delay: float, pace: float
    ) -> None:
        self._reactor = reactor
        self._request = request
        self._reply = reply
        self._pace = pace
        self._paused = False
        self._events: Iterator[bytes] = iter(())
        self._call: IDelayedCall | None = None
        request.notifyFinish().addErrback(self._gone)
        if delay:
            self._call = reactor.callLater(delay, self._begin)
        else:
            self._begin()

    def _gone(self, reason: Failure) -> None:
        self.stopProducing()

    def _begin(self) -> None:
        self._call = None
        request, reply = self._request, self._reply
        if reply.ending is Ending.HANG and isinstance(reply.body, bytes):
            return
        request.setResponseCode(reply.status)
        headers = {"Content-Type": reply.content_type, **dict(reply.headers)}
        if isinstance(reply.body, bytes):
            headers.setdefault("Content-Length", str(len(reply.body)))
        for name, value in headers.items():
            request.setHeader(name, value)
        if not isinstance(reply.body, bytes):
            self._events = reply.body
            # The head goes out at once, whatever the pace.
            request.write(b"")
            request.registerProducer(self, True)
            self._schedule(0)
            return
        request.write(reply.body)
        self._end()

    def _schedule(self, seconds: float) -> None:
        if self._call is None and not self._paused:
            self._call = self._reactor.callLater(seconds, self._emit)

    def _emit(self) -> None:
        self._call = None
        for _ in range(1 if self._pace else _BATCH):
            event = next(self._events, None)
            if event is None:
                self._request.unregisterProducer()
                self._end()
                return
            self._request.write(event)
            if self._paused:
                return
        self._schedule(self._pace)

    def _end(self) -> None:
        match self._reply.ending:
            case Ending.FINISH:
                self._request.finish()
            case Ending.BREAK:
                # Unlike after an abort, what was written still arrives.
                self._request.loseConnection()

    def pauseProducing(self) -> None:
        """The client reads too slowly."""
        self._paused = True
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def resumeProducing(self) -> None:
        """The client has caught up."""
        self._paused = False
        self._schedule(self._pace)

    def stopProducing(self) -> None:
        """The client has left."""
        self.pauseProducing()
        self._events = iter(())
