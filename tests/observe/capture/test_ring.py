"""Ring of captured exchanges: what it holds, and what makes room for what."""

from __future__ import annotations

import gzip
import tracemalloc

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from stream_proxy.observe.capture.capture import Capture
from stream_proxy.observe.capture.exchange import CapturedExchange
from stream_proxy.observe.capture.ring import CaptureRing
from stream_proxy.observe.ledger import Ledger
from tests.support.captures import as_lines, body_of, kept

FIELDS = [(b"Host", b"x"), (b"Content-Type", b"application/json")]


class RingTests(TestCase):
    """Bounds of a ring."""

    def setUp(self) -> None:
        self.ledger = Ledger(Clock().seconds)
        self.capture = Capture(self.ledger, megabytes=1, always=True)

    def begin(self) -> CapturedExchange:
        """Begin an exchange."""
        record = self.ledger.begin("main")
        record.method = b"POST"
        exchange = self.capture.begin(record, b"/v1/x", b"HTTP/1.1", FIELDS, "http://up")
        record.capture = exchange
        return exchange

    def end(self, exchange: CapturedExchange) -> None:
        """End an exchange."""
        self.ledger.end(self.ledger.live[exchange.number])

    def one(self, size: int, piece: int = 1000) -> CapturedExchange:
        """Make an exchange with a body."""
        exchange = self.begin()
        for at in range(0, size, piece):
            exchange.request_part(b"x" * min(piece, size - at))
        self.end(exchange)
        return exchange

    def test_oldest_go(self) -> None:
        """The oldest make room; what is held is what is counted."""
        made = [self.one(100_000).number for _ in range(30)]
        ring = self.capture.ring
        numbers = [each.number for each in kept(self.capture)]
        self.assertEqual(numbers, made[-len(numbers) :])
        self.assertIn(len(numbers), range(7, 11))
        self.assertEqual(ring.size, sum(each.size for each in kept(self.capture)))
        self.assertEqual(ring.pieces, sum(each.count for each in kept(self.capture)))
        ring.clear()
        self.assertEqual((ring.size, ring.pieces, len(ring)), (0, 0, 0))

    def test_resized(self) -> None:
        """A smaller ring drops at once what it cannot hold any more."""
        for _ in range(9):
            self.one(100_000)
        self.capture.change(always=True, megabytes=0.25, bodies=True, secrets=())
        self.assertEqual(len(self.capture.ring), 2)

    def test_larger_than_the_ring(self) -> None:
        """One exchange that is larger than the ring is cut, and says so."""
        self.one(5000)
        large = self.one(3_000_000)
        self.assertEqual([each.number for each in kept(self.capture)], [large.number])
        (line,) = as_lines(self.capture)
        self.assertEqual(line["request"]["cut"], "the capture has no more room")
        self.assertGreater(len(body_of(line["request"])), 800_000)
        self.assertLessEqual(self.capture.ring.size, 2**20)

    def test_under_way(self) -> None:
        """Exchanges under way are counted; the one that grows beyond the bound is cut."""
        first, second = self.begin(), self.begin()
        for exchange in (first, second):
            for _ in range(700):
                exchange.request_part(b"x" * 1000)
        self.assertLessEqual(self.capture.ring.size, 2**20)
        self.assertEqual((first.request.cut, second.request.cut is None), (None, False))
        self.end(first)
        self.end(second)
        self.assertEqual(len(self.capture.ring), 2)

    def test_counts(self) -> None:
        """The number of exchanges and of pieces is bounded, too."""
        ring = self.capture.ring = CaptureRing(2**30, most_exchanges=5, most_pieces=100)
        for _ in range(20):
            self.one(10)
        self.assertEqual(len(ring), 5)
        self.one(100, piece=1)
        self.assertLessEqual(ring.pieces, 102)
        self.assertEqual(len(ring), 1)

    def test_compressed(self) -> None:
        """A body that decodes to far more than a text does is cut before all of it was decoded."""
        self.capture.ring.most_bytes = 2**30
        record = self.ledger.begin("main")
        fields = [*FIELDS, (b"Content-Encoding", b"gzip")]
        exchange = record.capture = self.capture.begin(record, b"/", b"HTTP/1.1", fields, "http://up")
        exchange.request_part(gzip.compress(bytes(50_000_000)))
        self.ledger.end(record)
        self.assertEqual(exchange.request.cut, "it decodes to far more than a text does")
        self.assertLess(exchange.size, 4_000_000)

    def test_unreadable(self) -> None:
        """A body that nobody can look into is not kept: it could hold a secret."""
        record = self.ledger.begin("main")
        fields = [*FIELDS, (b"Content-Encoding", b"br")]
        exchange = record.capture = self.capture.begin(record, b"/", b"HTTP/1.1", fields, "http://up")
        exchange.request_part(b"\x0b\x02\x80")
        self.ledger.end(record)
        self.assertEqual((exchange.request.pieces, exchange.request.cut is None), ([], False))

    def test_honest(self) -> None:
        """Memory that a ring takes is about what it counts, also for small pieces."""
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            self.one(20_000, piece=200)
        self.ledger.recent.clear()
        taken = tracemalloc.get_traced_memory()[0] - before
        self.assertLess(taken, 1.15 * self.capture.ring.size)
        self.assertGreater(taken, 0.6 * self.capture.ring.size)
