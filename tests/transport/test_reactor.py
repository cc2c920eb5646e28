"""Tests of the time that the reactor counts."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.pollreactor import PollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.transport.reactor import count_monotonic_time


class TimeTests(SynchronousTestCase):
    """Steps of the wall clock, under each kind of reactor."""

    def reactor(self, kind: Any) -> Any:
        """Make a reactor that is not the process's."""
        made = kind()
        # The descriptors of its waker.
        self.addCleanup(lambda: [each.connectionLost(None) for each in list(made._internalReaders)])
        return made

    def clocks(self) -> list[float]:
        """Replace both clocks of the system, and return their times: monotonic, wall."""
        times = [1_000.0, 1_700_000_000.0]
        self.patch(time, "monotonic", lambda: times[0])
        self.patch(time, "time", lambda: times[1])
        return times

    def test_steps(self) -> None:
        """A step ends no limit early, and delays none; each counts the seconds that pass."""
        for kind in (SelectReactor, PollReactor, AsyncioSelectorReactor):
            for step in (3600.0, -3600.0):
                reactor = self.reactor(kind)
                times = self.clocks()
                self.patch(reactor, "seconds", time.time)
                count_monotonic_time(reactor)
                made: list[str] = []
                began = reactor.seconds()
                call = reactor.callLater(5, made.append, "limit")
                call.reset(10)
                times[1] += step
                reactor.runUntilCurrent()
                self.assertEqual((made, reactor.seconds() - began), ([], 0))
                times[0] += 10
                reactor.runUntilCurrent()
                self.assertEqual((made, reactor.seconds() - began), (["limit"], 10))

    def test_earlier_calls(self) -> None:
        """Calls that were due by the wall clock before stay due when they were."""
        reactor = self.reactor(SelectReactor)
        times = self.clocks()
        self.patch(reactor, "seconds", time.time)
        made: list[str] = []
        reactor.callLater(5, made.append, "early")
        count_monotonic_time(reactor)
        for passed, expected in ((4, []), (1, ["early"])):
            times[0] += passed
            reactor.runUntilCurrent()
            self.assertEqual(made, expected)

    def test_own_clock(self) -> None:
        """A reactor that counts with a clock of its own keeps it, and nothing is done twice."""
        reactor = self.reactor(SelectReactor)
        count_monotonic_time(reactor)
        seconds = reactor.seconds
        self.assertIsNot(seconds, time.time)
        count_monotonic_time(reactor)
        self.assertIs(reactor.seconds, seconds)

    def test_refused(self) -> None:
        """A reactor whose calls do not follow its clock is an error, not a limit that does not hold."""
        reactor = self.reactor(SelectReactor)
        later = reactor.callLater

        def by_wall_clock(delay: float, call: Any, *rest: Any) -> Any:
            made = later(delay, call, *rest)
            made.seconds = time.time
            return made

        reactor.callLater = by_wall_clock
        self.assertRaises(RuntimeError, count_monotonic_time, reactor)
