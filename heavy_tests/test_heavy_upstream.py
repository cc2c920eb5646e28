"""Responses in large numbers, as our client and Twisted's read them."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase as TestCase

from tests.support.responses import random_exchange, twisteds, worse


class HeavyReadingTests(TestCase):
    """100,000 responses with random heads and bodies, split at random."""

    timeout = 1800

    def test_as_twisted(self) -> None:
        """Each is read alike, or refused, and its connection is never reused more often."""
        source, read = Random(1), 0
        for number in range(100_000):
            reads, method, close = random_exchange(source)
            self.assertIsNone(worse(reads, method, close), (number, reads, method, close))
            read += twisteds(reads, method, close).failure is None
        self.assertGreater(read, 10_000)  # not all of them are refused by both
