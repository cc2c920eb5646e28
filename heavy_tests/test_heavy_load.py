"""Load on the real process: thousands of connections at once, thousands of requests, and a short soak."""

from __future__ import annotations

import asyncio

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from kits.soak.__main__ import summary
from kits.soak.crowd import allow_descriptors, crowd
from kits.soak.flat import flat
from kits.soak.run import Settings, soak

KIB, MIB = 2**10, 2**20
OPEN = 2000
#: Half as much again as one takes on the machine where this was measured.
STREAM_BYTES, SESSION_BYTES = 32 * KIB, 48 * KIB


class LoadTests(SynchronousTestCase):
    """Runs of ``twistd openai-stream-proxy``, with an upstream and clients in this process."""

    def test_open_at_once(self) -> None:
        """2,000 converted streams and 2,000 WebSockets at once get their own responses, in bounded memory."""
        if not allow_descriptors(4 * OPEN + 1000):
            raise SkipTest("this machine does not let a process open so many files")
        figures = asyncio.run(crowd(OPEN))
        print(figures)
        self.assertLess(figures.stream_bytes, STREAM_BYTES)
        self.assertLess(figures.session_bytes, SESSION_BYTES)
        self.assertLessEqual(figures.descriptors_after, 0)

    def test_one_after_the_other(self) -> None:
        """10,000 small requests, and 1,000 that fail, leave neither memory nor descriptors behind."""
        figures = asyncio.run(flat(10_000, 1_000))
        print(figures)
        self.assertLess(figures.small, 4 * MIB)
        self.assertLess(figures.failed, 4 * MIB)
        self.assertLessEqual(figures.descriptors, 0)

    def test_short_soak(self) -> None:
        """``make soak`` passes for a few seconds."""
        settings = Settings(5.0, seed=7, clients=12, pause=0.02, reload=False, sample_seconds=0.5)
        report = asyncio.run(soak(settings, lambda line: None))
        self.assertEqual(report.reasons, [], summary(report))
        self.assertGreater(sum(report.tally.done.values()), 100)
