"""What is remembered of refusals, and timers."""

from __future__ import annotations

from unittest import TestCase

from twisted.internet.task import Clock

from stream_proxy.flows.fallbacks import REMEMBER_SECONDS, RefusalMemory, Unsupported
from stream_proxy.transport.idle_timer import IdleTimer


class MemoryTests(TestCase):
    """Refusals by model."""

    def setUp(self) -> None:
        """A clock of our own."""
        self.clock = Clock()
        self.memory = RefusalMemory(self.clock.seconds, size=3)

    def test_by_refusal_and_model(self) -> None:
        """Each refusal is of one thing and one model."""
        self.memory.note(Unsupported.STREAM, b"a")
        self.assertTrue(self.memory.knows(Unsupported.STREAM, b"a"))
        self.assertFalse(self.memory.knows(Unsupported.STREAM, b"b"))
        self.assertFalse(self.memory.knows(Unsupported.INCLUDE_USAGE, b"a"))

    def test_hour(self) -> None:
        """It holds for an hour, from the last time."""
        self.memory.note(Unsupported.STREAM, b"a")
        self.clock.advance(REMEMBER_SECONDS - 1)
        self.assertTrue(self.memory.knows(Unsupported.STREAM, b"a"))
        self.memory.note(Unsupported.STREAM, b"a")
        self.clock.advance(REMEMBER_SECONDS - 1)
        self.assertTrue(self.memory.knows(Unsupported.STREAM, b"a"))
        self.clock.advance(1)
        self.assertFalse(self.memory.knows(Unsupported.STREAM, b"a"))

    def test_knowing_does_not_prolong(self) -> None:
        """To be asked is no new refusal."""
        self.memory.note(Unsupported.STREAM, b"a")
        for _ in range(2):
            self.clock.advance(REMEMBER_SECONDS / 2)
            known = self.memory.knows(Unsupported.STREAM, b"a")
        self.assertFalse(known)

    def test_bound(self) -> None:
        """The least recently used is forgotten first."""
        for model in (b"a", b"b", b"c"):
            self.memory.note(Unsupported.STREAM, model)
        self.memory.knows(Unsupported.STREAM, b"a")
        self.memory.note(Unsupported.STREAM, b"d")
        known = [model for model in (b"a", b"b", b"c", b"d") if self.memory.knows(Unsupported.STREAM, model)]
        self.assertEqual(known, [b"a", b"c", b"d"])


class TimerTests(TestCase):
    """The timer of silences."""

    def setUp(self) -> None:
        """A timer of ten seconds."""
        self.clock = Clock()
        self.expired: list[float] = []
        self.timer = IdleTimer(self.clock, 10, lambda: self.expired.append(self.clock.seconds()))

    def test_silence(self) -> None:
        """It expires once, after that much silence."""
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
