"""Download that is made while it is sent, a bounded step at a time and as fast as its client reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from stream_proxy.service.admin.router import Visit
from stream_proxy.transport.timers import Timeout

#: Bytes that are made in one turn of the reactor, and steps, of which some yield none.
_TURN_BYTES, _TURN_STEPS = 131_072, 16


@implementer(IPushProducer)
class Download:
    """One download, whose head has been set.

    :param visit: the request.
    :param steps: yields the parts of the body; each is little work.
    :param ended: called once, when it is whole or its client has gone.
    """

    def __init__(
        self, clock: IReactorTime, visit: Visit, steps: Iterator[bytes], ended: Callable[[], None]
    ) -> None:
        self._visit = visit
        self._steps = steps
        self._ended = ended
        self._turn = Timeout(clock)
        self._paused = False

    def start(self) -> None:
        """Begin to send."""
        self._visit.gone = self._end
        self._visit.request.registerProducer(self, True)
        self._turn.start(0, self._send)

    def _send(self) -> None:
        request, size = self._visit.request, 0
        for _ in range(_TURN_STEPS):
            part = next(self._steps, None)
            if part is None:
                request.unregisterProducer()
                request.finish()
                self._end()
                return
            if part:
                request.write(part)
                size += len(part)
            if self._paused:
                return
            if size >= _TURN_BYTES:
                break
        self._turn.start(0, self._send)

    def _end(self) -> None:
        self._turn.stop()
        self._steps = iter(())
        self._visit.gone = None
        self._ended()

    def pauseProducing(self) -> None:
        self._paused = True
        self._turn.stop()

    def resumeProducing(self) -> None:
        if self._paused:
            self._paused = False
            self._turn.start(0, self._send)

    def stopProducing(self) -> None:
        """Do nothing: the request says that its client has gone."""
