"""Delivery of a response at its pace, until it ends or the client leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from stream_proxy.mock.messages import Pause
from stream_proxy.mock.wire import Ending, HTTPResponse

_BATCH = 64
"""Events written per reactor iteration when there is no pace; more would keep other clients waiting."""


class _Request(Protocol):
    """The part of `twisted.web.server.Request` that a `Delivery` uses; Twisted has no annotations for it."""

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
    """One response being sent. It owns the timer and the iterator, and drops both when the client leaves."""

    def __init__(
        self, reactor: IReactorTime, request: _Request, response: HTTPResponse, delay: float, pace: float
    ) -> None:
        self._reactor = reactor
        self._request = request
        self._response = response
        self._pace = pace
        self._paused = False
        self._events: Iterator[bytes | Pause] = iter(())
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
        request, response = self._request, self._response
        if response.ending is Ending.HANG and isinstance(response.body, bytes):
            return
        request.setResponseCode(response.status)
        headers = {"Content-Type": response.content_type, **dict(response.headers)}
        if isinstance(response.body, bytes):
            headers.setdefault("Content-Length", str(len(response.body)))
        for name, value in headers.items():
            request.setHeader(name, value)
        if not isinstance(response.body, bytes):
            self._events = response.body
            # An empty write sends the head at once; the first event may have to wait for its pace.
            request.write(b"")
            request.registerProducer(self, True)
            self._schedule(0)
            return
        request.write(response.body)
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
            if isinstance(event, Pause):
                if self._response.paced:
                    self._schedule(event.seconds)
                    return
                continue
            self._request.write(event)
            if self._paused:
                return
        self._schedule(self._pace)

    def _end(self) -> None:
        match self._response.ending:
            case Ending.FINISH:
                self._request.finish()
            case Ending.BREAK:
                # Unlike an abort, this still sends what has been written.
                self._request.loseConnection()

    def pauseProducing(self) -> None:
        """Stop sending: the client reads too slowly."""
        self._paused = True
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def resumeProducing(self) -> None:
        """Go on sending: the client has caught up."""
        self._paused = False
        self._schedule(self._pace)

    def stopProducing(self) -> None:
        """Drop the rest: the client has left."""
        self.pauseProducing()
        self._events = iter(())
