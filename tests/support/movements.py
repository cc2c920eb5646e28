"""Movements that idle timers note, for tests that let silence pass on a clock of their own."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from stream_proxy.transport.idle_timer import IdleTimer
from tests.support.loopback import turns


class Movements:
    """Movements, from now to the end of a test."""

    def __init__(self, case: TestCase) -> None:
        self._noted: set[tuple[object, float]] = set()
        touch = IdleTimer.touch

        def noted(timer: IdleTimer) -> float:
            now = touch(timer)
            self._noted.add((timer._clock, now))
            return now

        case.patch(IdleTimer, "touch", noted)

    async def now(self, clock: Clock, most: int | None = None) -> None:
        """Wait until something has moved at the present time of `clock`.

        :param most: turns of the reactor after which to wait no longer.
        """
        count = 0
        while (clock, clock.seconds()) not in self._noted and count != most:
            await turns(1)
            count += 1
