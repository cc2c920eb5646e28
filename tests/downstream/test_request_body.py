"""Tests of how much of a request body is read at once."""

from __future__ import annotations

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.downstream.request_body import RequestBody


class _Channel:
    """Channel that notes how much may be read at once."""

    def __init__(self) -> None:
        self.allowed: list[int] = []

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""

    def allow_reads(self, most: int) -> None:
        self.allowed.append(most)


class ReadTests(SynchronousTestCase):
    """Larger reads are only for what is passed on."""

    def test_large(self) -> None:
        """While a large body of known length is passed on, more is read at once; after it no longer."""
        channel = _Channel()
        body = RequestBody(channel, 10_000_000)
        self.assertEqual(channel.allowed, [])
        body.startProducing(StringTransport())
        self.assertEqual(channel.allowed, [10_000_000])
        body.end_received()
        self.assertEqual(channel.allowed, [10_000_000, 0])

    def test_others(self) -> None:
        """Small bodies, those in chunks, and those that are collected are read as ever."""
        for length, collected in ((262_144, False), (None, False), (10_000_000, True)):
            channel = _Channel()
            body = RequestBody(channel, length)
            if collected:
                self.assertNoResult(body.collect(20_000_000))
            else:
                body.startProducing(StringTransport())
            self.assertEqual(channel.allowed, [])
