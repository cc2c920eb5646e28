"""How a service that is a process of its own takes signals: the first asks it to stop, the second insists."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.application.service import MultiService


class StoppableService(MultiService):
    """A service whose stopping can take a while, and can be cut short.

    :param handle_signals: in a process of its own: a second SIGTERM or SIGINT ends the waiting of the first.
    :param hang_up: what SIGHUP asks for; without it the signal has its usual meaning.
    """

    def __init__(
        self, reactor: Any, *, handle_signals: bool = False, hang_up: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._handle_signals = handle_signals
        self._hang_up = hang_up
        self._signalled = False

    def startService(self) -> None:
        """Start, and handle signals from when the reactor runs."""
        super().startService()
        hang_up = self._hang_up
        if hang_up is not None:
            signal.signal(signal.SIGHUP, lambda number, frame: self._reactor.callFromThread(hang_up))
        if self._handle_signals:
            # The reactor installs its own handlers when it starts to run; ours stand before them.
            self._reactor.callWhenRunning(self._install)

    def abort(self) -> None:
        """Wait no longer for what is under way."""
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
            if self._signalled or not self.running:
                self._reactor.callFromThread(self.abort)
            else:
                self._signalled = True
                stop(number, frame)

        return handle
