"""Limits of time that change with each request."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.downstream.time_limits import IdleLimit


class IdleLimitTests(SynchronousTestCase):
    """``IdleLimit`` under a clock that only the test advances."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[float] = []
        self.limit = IdleLimit(self.clock, lambda: self.expired.append(self.clock.seconds()))

    def test_movement(self) -> None:
        """The time counts from the last movement, without a new delayed call for each."""
        self.limit.set(10)
        (call,) = self.clock.getDelayedCalls()
        for _ in range(9):
            self.clock.advance(1)
            self.limit.touch()
        self.assertEqual(self.clock.getDelayedCalls(), [call])
        self.clock.advance(9.5)
        self.assertEqual(self.expired, [])
        self.clock.advance(0.5)
        self.assertEqual(self.expired, [19])

    def test_suspended(self) -> None:
        """While there is no limit nothing expires; the next limit begins to count when it is set."""
        self.limit.set(10)
        self.limit.set(None)
        self.clock.advance(1000)
        self.limit.touch()
        self.assertEqual((self.expired, self.clock.getDelayedCalls()), ([], []))
        self.limit.set(10)
        self.limit.set(None)
        self.clock.advance(5)
        self.limit.set(10)
        self.clock.advance(9)
        self.assertEqual(self.expired, [])
        self.clock.advance(1)
        self.assertEqual(self.expired, [1015])

    def test_shorter(self) -> None:
        """A limit that ends before the one that was set last ends in time."""
        self.limit.set(60)
        self.limit.set(5)
        self.clock.advance(5)
        self.assertEqual(self.expired, [5])

    def test_unexact(self) -> None:
        """Seconds whose sums are not exact do not keep the clock busy."""
        clock = self.clock
        clock.advance(1764250000.1)
        self.limit.set(0.3)
        for _ in range(10):
            clock.advance(0.1)
            self.limit.touch()
        clock.advance(0.35)
        self.assertEqual(len(self.expired), 1)

    def test_stopped(self) -> None:
        """A limit that was stopped leaves no delayed call, and sets none."""
        self.limit.set(5)
        self.limit.stop()
        self.limit.set(5)
        self.assertEqual(self.clock.getDelayedCalls(), [])
