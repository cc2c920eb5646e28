"""Signal handling for a service that is a process: SIGTERM stops it after a delay, others do not wait."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from types import FrameType

from twisted.application.service import MultiService

from stream_proxy.transport.reactor import IReactor
from stream_proxy.transport.timers import Timeout


class StoppableService(MultiService):
    """A service that may take a while to stop, and can be told not to wait.

    :param handle_signals: for the main service of a process: at SIGTERM or SIGINT it leaves, and stops after
        the delay; the next one ends the delay, if there is one, and the one after that calls :meth:`abort`.
    :param hang_up: called at SIGHUP; without it the signal has its usual effect.
    """

    def __init__(
        self, reactor: IReactor, *, handle_signals: bool = False, hang_up: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._handle_signals = handle_signals
        self._hang_up = hang_up
        self._signalled = False
        self._delay = Timeout(reactor)

    def startService(self) -> None:
        """Start, and handle signals as soon as the reactor runs."""
        super().startService()
        hang_up = self._hang_up
        if hang_up is not None:
            signal.signal(signal.SIGHUP, lambda number, frame: self._reactor.callFromThread(hang_up))
        if self._handle_signals:
            # The reactor installs its own handlers when it starts to run; ours replace and call them.
            self._reactor.callWhenRunning(self._install)

    def leave(self) -> float:
        """Prepare to stop, and return after how many seconds that is to begin."""
        raise NotImplementedError

    def abort(self) -> None:
        """Abort what is still running."""
        raise NotImplementedError

    def _install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            stop = signal.getsignal(number)
            if callable(stop):
                signal.signal(number, self._handler(stop))

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
            seconds = self.leave()
            if seconds:
                self._delay.start(seconds, stop)
            else:
                stop()
