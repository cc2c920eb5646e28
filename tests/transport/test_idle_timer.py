"""Timer for silence."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from stream_proxy.transport.idle_timer import IdleTimer


class IdleTimerTests(TestCase):
    """A timer of ten seconds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[float] = []

    def timer(self, total: float | None = None) -> IdleTimer:
        """Return a timer that begins now."""
        return IdleTimer(self.clock, 10, lambda: self.expired.append(self.clock.seconds()), total)

    def test_silence(self) -> None:
        """It expires once, after that much silence, and again only after a further movement."""
        timer = self.timer()
        self.clock.advance(9)
        timer.touch()
        self.clock.advance(9)
        self.assertEqual(self.expired, [])
        self.clock.advance(1)
        self.clock.advance(100)
        self.assertEqual(self.expired, [19])
        timer.touch()
        self.clock.advance(9)
        self.assertEqual(self.expired, [19])
        self.clock.advance(1)
        self.assertEqual(self.expired, [19, 129])

    def test_movements(self) -> None:
        """It does not expire while anything moves, and makes no delayed call for that."""
        timer = self.timer()
        (call,) = self.clock.getDelayedCalls()
        for _ in range(9):
            self.clock.advance(1)
            timer.touch()
            self.assertEqual((self.clock.getDelayedCalls(), call.getTime()), ([call], 10))
        self.clock.advance(1)
        (call,) = self.clock.getDelayedCalls()
        self.assertEqual((call.getTime(), self.expired), (19, []))

    def test_total(self) -> None:
        """At the end of the total time it expires whatever moves, and is late unless there was silence."""
        timer = self.timer(total=25)
        for second in range(1, 26):
            self.clock.advance(1)
            if second % 4 == 0:
                timer.touch()
        self.assertEqual((self.expired, timer.late), ([25], True))

    def test_silence_before_total(self) -> None:
        """Silence that ends with the total time, or before it, is silence."""
        for total in (10, 11):
            timer = self.timer(total)
            self.clock.advance(10)
            self.assertEqual(len(self.expired), 1)
            self.assertFalse(timer.late)
            self.expired.clear()
            timer.stop()

    def test_stop(self) -> None:
        """A stopped timer leaves nothing behind, and can be touched and stopped again."""
        timer = self.timer()
        timer.stop()
        timer.touch()
        timer.stop()
        self.clock.advance(100)
        self.assertEqual((self.clock.getDelayedCalls(), self.expired), ([], []))

    def test_stopped_when_it_expires(self) -> None:
        """What it calls may stop it."""
        timer = IdleTimer(self.clock, 10, lambda: timer.stop())
        self.clock.advance(10)
        timer.touch()
        self.assertEqual(self.clock.getDelayedCalls(), [])
