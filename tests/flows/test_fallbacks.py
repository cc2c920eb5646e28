"""Memory of refusals, and idle timers."""

from __future__ import annotations

from unittest import TestCase

from twisted.internet.task import Clock

from stream_proxy.flows.fallbacks import REMEMBER_SECONDS, RefusalMemory, Unsupported
from stream_proxy.transport.idle_timer import IdleTimer


class MemoryTests(TestCase):
    """Refusals, remembered by model."""

    def setUp(self) -> None:
        """Make a clock that only the test advances."""
        self.clock = Clock()
        self.memory = RefusalMemory(self.clock.seconds, size=3)

    def test_by_refusal_and_model(self) -> None:
        """A refusal concerns one feature and one model."""
        self.memory.note(Unsupported.STREAM, b"a")
        self.assertTrue(self.memory.knows(Unsupported.STREAM, b"a"))
        self.assertFalse(self.memory.knows(Unsupported.STREAM, b"b"))
        self.assertFalse(self.memory.knows(Unsupported.INCLUDE_USAGE, b"a"))

    def test_hour(self) -> None:
        """A refusal is remembered for an hour after its last occurrence."""
        self.memory.note(Unsupported.STREAM, b"a")
        self.clock.advance(REMEMBER_SECONDS - 1)
        self.assertTrue(self.memory.knows(Unsupported.STREAM, b"a"))
        self.memory.note(Unsupported.STREAM, b"a")
        self.clock.advance(REMEMBER_SECONDS - 1)
        self.assertTrue(self.memory.knows(Unsupported.STREAM, b"a"))
        self.clock.advance(1)
        self.assertFalse(self.memory.knows(Unsupported.STREAM, b"a"))

    def test_knowing_does_not_prolong(self) -> None:
        """Looking a refusal up does not extend it."""
        self.memory.note(Unsupported.STREAM, b"a")
        for _ in range(2):
            self.clock.advance(REMEMBER_SECONDS / 2)
            known = self.memory.knows(Unsupported.STREAM, b"a")
        self.assertFalse(known)

    def test_bound(self) -> None:
        """The least recently used refusal is forgotten first."""
        for model in (b"a", b"b", b"c"):
            self.memory.note(Unsupported.STREAM, model)
        self.memory.knows(Unsupported.STREAM, b"a")
        self.memory.note(Unsupported.STREAM, b"d")
        known = [model for model in (b"a", b"b", b"c", b"d") if self.memory.knows(Unsupported.STREAM, model)]
        self.assertEqual(known, [b"a", b"c", b"d"])


class TimerTests(TestCase):
    """The timer that watches for silence."""

    def setUp(self) -> None:
        """Make a timer of ten seconds."""
        self.clock = Clock()
        self.expired: list[float] = []
        self.timer = IdleTimer(self.clock, 10, lambda: self.expired.append(self.clock.seconds()))

    def test_silence(self) -> None:
        """The timer expires once, after that much silence."""
        self.clock.advance(9)
        self.timer.touch()
        self.clock.advance(9)
        self.assertEqual(self.expired, [])
        self.clock.advance(1)
        self.assertEqual(self.expired, [19])
        self.timer.touch()
        self.timer.stop()
        self.clock.advance(100)
        self.assertEqual(self.expired, [19])

    def test_stop(self) -> None:
        """A stopped timer leaves nothing behind, and can be touched and stopped again."""
        self.timer.stop()
        self.timer.touch()
        self.timer.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
