"""Control of a service that is a process: signals, and what systemd is told."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from types import FrameType

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred

from stream_proxy.service.control.systemd import ServiceManager
from stream_proxy.transport.reactor import IReactor
from stream_proxy.transport.timers import Timeout


class StoppableService(MultiService):
    """A service that may take a while to stop, and can be told not to wait.

    At SIGTERM or SIGINT it leaves, and stops after a delay. The next such signal ends the delay, if there is
    one, and the one after that calls :meth:`abort`.

    :param hang_up: called at SIGHUP, unless it stops; without it the signal has its usual effect.
    """

    def __init__(self, reactor: IReactor, *, hang_up: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._reactor = reactor
        self._hang_up = hang_up
        self._signalled = False
        self._delay = Timeout(reactor)
        self._manager = ServiceManager(reactor, os.environ)
        #: Whether it stops, or is about to.
        self.draining = False

    @property
    def is_ready(self) -> bool:
        """Whether it does what it was started for."""
        raise NotImplementedError

    def leave(self) -> float:
        """Prepare to stop, and return after how many seconds that is to begin."""
        raise NotImplementedError

    def abort(self) -> None:
        """Abort what is still running."""
        raise NotImplementedError

    async def finish(self) -> None:
        """Stop everything."""
        raise NotImplementedError

    def startService(self) -> None:
        """Start, and handle signals as soon as the reactor runs."""
        super().startService()
        if self._hang_up is not None:
            signal.signal(signal.SIGHUP, lambda number, frame: self._reactor.callFromThread(self._reload))
        # The reactor installs its own handlers when it starts to run; ours replace and call them.
        self._reactor.callWhenRunning(self._install)

    def stopService(self) -> Deferred[None]:
        """Stop, and return when everything has ended."""
        self._drain()
        return Deferred.fromCoroutine(self._stop(maybeDeferred(super().stopService)))

    async def _stop(self, others: Deferred[object]) -> None:
        await self.finish()
        await others
        self._manager.close()

    def _drain(self) -> None:
        if not self.draining:
            self.draining = True
            self._manager.stopping()

    def _reload(self) -> None:
        if self._hang_up is not None and not self.draining:
            self._manager.reloading()
            self._hang_up()
            self._manager.ready()

    def _install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            stop = signal.getsignal(number)
            if callable(stop):
                signal.signal(number, self._handler(stop))
        self._manager.starting(lambda: self.is_ready)

    def _handler(
        self, stop: Callable[[int, FrameType | None], object]
    ) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            self._reactor.callFromThread(self._signal, partial(stop, number, frame))

        return handle

    def _signal(self, stop: Callable[[], object]) -> None:
        if self._delay.running:
            self._delay.stop()
            stop()
        elif self._signalled or not self.running:
            self.abort()
        else:
            self._signalled = True
            self._drain()
            seconds = self.leave()
            if seconds:
                self._delay.start(seconds, stop)
            else:
                stop()
