"""Hostile shapes against a real process: memory for each byte, and CPU time of a reactor turn."""

from __future__ import annotations

from pathlib import Path
from unittest import TestCase

from kits.hostile.__main__ import Measurement
from kits.hostile.shapes import EVENTS, REQUESTS, SHAPES, Shape


class HostileTests(TestCase):
    """Bounds, with room for a slow or busy machine; without them the figures are ten times these or more."""

    def check(
        self, shape: Shape, size: int, statuses: tuple[int, ...], *, memory: float, turn: float
    ) -> None:
        """Send `size` bytes of a shape; check the status, the memory for each byte, and the longest turn."""
        with self.subTest(shape.name), Measurement(Path(__file__).resolve().parent.parent) as measurement:
            status, held, longest = measurement.cost(shape, size)
            self.assertIn(status, statuses)
            self.assertLess(held, memory)
            self.assertLess(longest, turn)

    def test_shapes(self) -> None:
        """No shape takes more than some times its bytes, or keeps others waiting for long."""
        for shape in SHAPES:
            self.check(shape, 3 * 2**20, (413, 502), memory=12, turn=0.15)

    def test_long_events(self) -> None:
        """A single event near the bound is worked on in short turns, whatever is odd about it."""
        for shape in EVENTS:
            self.check(shape, int(15.9 * 2**20), (200, 500, 502), memory=14, turn=0.1)

    def test_large_requests(self) -> None:
        """A request of 100 MiB is held once, and worked on in short turns."""
        for shape in REQUESTS:
            self.check(shape, 100 * 2**20, (200, 413), memory=2, turn=0.06)
