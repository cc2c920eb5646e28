"""Tests that our client reads responses as Twisted's does with our checks, or refuses what is odd."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase as TestCase

from stream_proxy.upstream.http1.faults import HeadTooLargeError
from stream_proxy.upstream.http1.head import MAX_HEAD_BYTES, MAX_HEAD_FIELDS, HeadReader
from tests.http.test_smuggling import ENDING_ANSWERS, FAULTY_ANSWERS
from tests.support import responses
from tests.support.responses import CLOSES, METHODS, RESPONSES, answer, ours, worse
from tests.upstream.test_chunked import PLACES, cut


class ReadingTests(TestCase):
    """Whole responses, heads and bodies, compared with Twisted's parser and ours on it."""

    @given(RESPONSES, PLACES, METHODS, CLOSES)
    def test_as_twisted(
        self, data: bytes, places: list[int], method: bytes, close: type[Exception] | None
    ) -> None:
        """Any response, split anywhere, is read alike, or refused, and never reused more often."""
        self.assertIsNone(worse(cut(data, places), method, close))

    @given(RESPONSES, PLACES, METHODS, CLOSES)
    def test_reads(
        self, data: bytes, places: list[int], method: bytes, close: type[Exception] | None
    ) -> None:
        """The reading does not depend on how the response is split."""
        self.assertEqual(ours(cut(data, places), method, close), ours([data], method, close))

    def test_corpus(self) -> None:
        """The responses of the smuggling tests, whole and byte by byte."""
        for data in [*FAULTY_ANSWERS, *(first for first, _ in ENDING_ANSWERS)]:
            for method in (b"GET", b"HEAD"):
                for close in (None, ConnectionDone, ConnectionLost):
                    for reads in ([data], [data[at : at + 1] for at in range(len(data))]):
                        self.assertIsNone(worse(reads, method, close), (reads, method, close))

    def test_fields(self) -> None:
        """Fields keep their spelling and order; those of the connection stay here."""
        reader = HeadReader(to_head=False)
        head = reader.feed(
            answer(
                b"x-b: 1", b"Connection: X-C", b"X-C: 2", b"set-COOKIE: a", b"X-B: 3", b"Content-Length: 0"
            )
        )
        assert head is not None
        self.assertEqual(head.fields, [(b"x-b", b"1"), (b"set-COOKIE", b"a"), (b"X-B", b"3")])


class BoundTests(TestCase):
    """Bounds of heads."""

    def too_large(self, *reads: bytes) -> bool:
        """Return whether a head is refused for its size."""
        reader = HeadReader(to_head=False)
        try:
            for read in reads:
                reader.feed(read)
        except HeadTooLargeError:
            return True
        return False

    def test_bytes(self) -> None:
        """A head of up to 64 KiB is read, in one piece or in many."""
        for size, expected in ((MAX_HEAD_BYTES, False), (MAX_HEAD_BYTES + 1, True)):
            head = answer(b"X: ")
            head = head.replace(b"X: ", b"X: " + b"y" * (size - len(head)))
            self.assertEqual(len(head), size)
            for step in (size, 1000):
                reads = [head[at : at + step] for at in range(0, size, step)]
                self.assertEqual(self.too_large(*reads), expected, (size, step))
            self.assertEqual(self.too_large(head + b"body" * 100_000), expected, size)

    def test_fields(self) -> None:
        """A head has up to 500 fields, whether or not it is plain."""
        for count, expected in ((MAX_HEAD_FIELDS, False), (MAX_HEAD_FIELDS + 1, True)):
            for end in (b"\r\n", b"\n"):
                self.assertEqual(self.too_large(answer(*[b"X: y"] * count, end=end)), expected, (count, end))

    def test_interim(self) -> None:
        """Interim heads count, so that they do not go on for ever."""
        self.assertTrue(self.too_large(*[b"HTTP/1.1 103 Hint\r\n\r\n" * 100] * 100))
        self.assertTrue(self.too_large(*[b"HTTP/1.1 103 Hint\r\nA: b\r\n\r\n"] * (MAX_HEAD_FIELDS + 1)))


class WorseTests(TestCase):
    """The comparison itself."""

    @given(st.sampled_from([b"5, 6", b"x", b"-1"]))
    def test_notices(self, length: bytes) -> None:
        """A length that ours took would be noticed."""
        read = responses.twisteds
        self.addCleanup(setattr, responses, "ours", ours)
        responses.ours = lambda *_: read([answer(b"Content-Length: 5", body=b"abcde")])
        self.assertIsNotNone(worse([answer(b"Content-Length: " + length, body=b"abcde")]))
