"""Hostile shapes against a real process: memory for each byte, and CPU time of a reactor turn."""

from __future__ import annotations

from pathlib import Path
from unittest import TestCase

from kits.hostile.__main__ import Measurement
from kits.hostile.shapes import REQUESTS, SHAPES


class HostileTests(TestCase):
    """Bounds, with room for a slow or busy machine; without them the figures are ten times these or more."""

    def test_shapes(self) -> None:
        """No shape takes more than some times its bytes, or keeps others waiting for long."""
        for shape in SHAPES:
            with self.subTest(shape.name), Measurement(Path(__file__).resolve().parent.parent) as measurement:
                status, memory, turn = measurement.cost(shape, 3 * 2**20)
                self.assertIn(status, (413, 502))
                self.assertLess(memory, 12)
                self.assertLess(turn, 0.15)

    def test_large_requests(self) -> None:
        """A request of 100 MiB is held once, and worked on in short turns."""
        for shape in REQUESTS:
            with self.subTest(shape.name), Measurement(Path(__file__).resolve().parent.parent) as measurement:
                status, memory, turn = measurement.cost(shape, 100 * 2**20)
                self.assertIn(status, (200, 413))
                self.assertLess(memory, 2)
                self.assertLess(turn, 0.06)
