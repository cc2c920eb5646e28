"""Tests that the decoder of chunked bodies reads what Twisted's reads, or refuses it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase as TestCase
from twisted.web.http import _ChunkedTransferDecoder, _MalformedChunkedDataError

from stream_proxy.upstream.http1.chunked import ChunkedBody


@dataclass
class Decoded:
    """What a decoder makes of some reads.

    :param end: ``"incomplete"``, ``"malformed"``, ``"ended"``, or ``"surplus"`` if bytes came behind the end.
    """

    content: bytes
    end: str


def ours(reads: list[bytes]) -> Decoded:
    """Return what our decoder makes of `reads`."""
    body, content = ChunkedBody(), bytearray()
    for number, read in enumerate(reads):
        content += body.feed(read)
        if body.fault is not None:
            return Decoded(bytes(content), "malformed")
        if body.ended:
            surplus = body.surplus or any(reads[number + 1 :])
            return Decoded(bytes(content), "surplus" if surplus else "ended")
    return Decoded(bytes(content), "incomplete")


def twisteds(reads: list[bytes]) -> Decoded:
    """Return what Twisted's decoder makes of `reads`."""
    content, after = bytearray(), list[bytes]()
    decoder = _ChunkedTransferDecoder(content.extend, after.append)
    try:
        for number, read in enumerate(reads):
            decoder.dataReceived(read)
            if after:
                surplus = after[0] or any(reads[number + 1 :])
                return Decoded(bytes(content), "surplus" if surplus else "ended")
    except _MalformedChunkedDataError:
        return Decoded(bytes(content), "malformed")
    return Decoded(bytes(content), "incomplete")


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """Split `body` at these places, into reads of which none is empty."""
    ends = sorted({place % (len(body) + 1) for place in places} - {0, len(body)})
    return [body[a:b] for a, b in zip([0, *ends], [*ends, len(body)], strict=True)]


CHUNK = st.one_of(
    st.binary(min_size=1, max_size=40).map(lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
    st.binary(min_size=1, max_size=40).map(lambda data: b"%04X;a=b\r\n%b\r\n" % (len(data), data)),
    st.sampled_from(
        [
            b"0x5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"0\r\n\r\n\r\n",
            b"0\r\nX: y\r\n\r\n",
            b"0\r\nX: y\r\n\n",
            b"0\r\nX y\r\n\r\n",
            b"\r\n",
            b"\n",
            b"5\r\nhello\n\n",
            b"5\nhello\r\n",
            b"-1\r\n\r\n",
            b"5 \r\nhello\r\n",
            b'5;a="b;c"\r\nhello\r\n',
            b"5; a=b\r\nhello\r\n",
            b"5;\r\nhello\r\n",
            b"x\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        ]
    ),
    st.binary(max_size=6),
)
CHUNKS = st.lists(CHUNK, max_size=8)
PLACES = st.lists(st.integers(0, 500), max_size=6)

#: What may make our decoder stricter than Twisted's, which takes every line as a trailer, an extension of
#: blanks and quotes, and sizes beyond 64 bits.
STRICTER = re.compile(rb"0\r\n[^\r]|;[^\r]*[^\r0-9A-Za-z=]|;[=\r]|[0-9A-Fa-f]{17}")


def differs(reads: list[bytes]) -> str | None:
    """Return how our reading of `reads` is worse than Twisted's, or ``None``."""
    mine, theirs = ours(reads), twisteds(reads)
    if mine == theirs:
        return None
    if mine.end != "malformed":
        return f"{mine} in place of {theirs}"
    if not theirs.content.startswith(mine.content):
        return f"other content: {mine} in place of {theirs}"
    if theirs.end == "malformed" or STRICTER.search(b"".join(reads)):
        return None
    # llhttp looks at single bytes, Twisted waits for the line to end.
    later = twisteds([*reads, b"\r\n\r\n"])
    return None if later.end == "malformed" else f"{mine} in place of {theirs}, later {later}"


class ChunkedTests(TestCase):
    """The decoder compared with Twisted's, and its bounds."""

    @given(CHUNKS, PLACES)
    @example([b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\n\r\n"], [])
    @example([b"0\r\nX: y\r\n\r\n"], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    def test_as_twisted(self, chunks: list[bytes], places: list[int]) -> None:
        """Any bytes, split anywhere, have the content and the end that Twisted finds, or are malformed."""
        self.assertIsNone(differs(cut(b"".join(chunks), places)))

    @given(CHUNKS, PLACES)
    def test_reads(self, chunks: list[bytes], places: list[int]) -> None:
        """The content and the end do not depend on how the body is split."""
        whole = b"".join(chunks)
        self.assertEqual(ours(cut(whole, places)), ours([whole]))

    def test_one_read(self) -> None:
        """The content of a read is returned at once, parts of a chunk included."""
        body = ChunkedBody()
        self.assertEqual(body.feed(b"3\r\nabc\r\n4\r\ndefg\r\n5\r\nhi"), b"abcdefghi")
        self.assertEqual(body.feed(b"jkl\r\n1\r\nm\r\n1\r\nn\r\n"), b"jklmn")
        self.assertFalse(body.ended)

    def test_surplus(self) -> None:
        """Whatever stands behind the end is noticed, line ends as well, and is no content."""
        end = b"1\r\na\r\n0\r\n\r\n"
        for behind in (
            b"\n",
            b"\r",
            b"\r\n",
            b"\r\n\r\n",
            b"x",
            b"1\r\nb\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nb",
        ):
            self.assertEqual(ours([end + behind]), Decoded(b"a", "surplus"), behind)
        for place in range(len(end)):
            self.assertEqual(ours([end[:place], end[place:]]), Decoded(b"a", "ended"), place)
            self.assertEqual(ours([end[:place], end[place:] + b"\r\n"]), Decoded(b"a", "surplus"), place)

    def test_trailers(self) -> None:
        """A trailer section is dropped; one that is malformed, or that is framing, is an error."""
        for trailer in (b"X: y\r\n", b"X:\r\nY: z\r\n", b"Server-Timing: a;dur=1\r\n"):
            self.assertEqual(ours([b"1\r\na\r\n0\r\n" + trailer + b"\r\n"]), Decoded(b"a", "ended"), trailer)
        for trailer in (
            b"no colon\r\n",
            b" X: y\r\n",
            b"X : y\r\n",
            b"X: y\r\n z\r\n",
            b"X: a\rb\r\n",
            b"X: a\0b\r\n",
            b"X: y\n",
            b": y\r\n",
            b"Content-Length: 5\r\n",
            b"HTTP/1.1 200 OK\r\n",
        ):
            self.assertEqual(ours([b"1\r\na\r\n0\r\n" + trailer + b"\r\n"]).end, "malformed", trailer)

    def test_bounds(self) -> None:
        """Extensions and trailers end at 64 KiB, however they are split."""
        for piece in (b"5;a=" + b"x" * 70_000, b"0\r\n" + b"X: y\r\n" * 12_000, b"0\r\nX: " + b"y" * 70_000):
            for size in (1 << 20, 4096, 100):
                reads = [piece[at : at + size] for at in range(0, len(piece), size)]
                self.assertEqual(ours([b"1\r\na\r\n", *reads]), Decoded(b"a", "malformed"), (piece[:9], size))
        many = b"1;a=%b\r\nx\r\n" % (b"y" * 4000)
        self.assertEqual(ours([many] * 100).end, "malformed")

    def test_many(self) -> None:
        """Chunks may be as many and as small as they like, with extensions as some services sign them."""
        for chunk in (b"1\r\nx\r\n", b"1;chunk-signature=%b\r\nx\r\n" % (b"a" * 64)):
            for count in (1, 500):
                self.assertEqual(ours([chunk * count] * 500), Decoded(b"x" * 500 * count, "incomplete"))
