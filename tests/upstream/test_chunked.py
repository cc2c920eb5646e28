"""Tests that the decoder of chunked bodies agrees with Twisted's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase as TestCase
from twisted.web.http import _ChunkedTransferDecoder, _MalformedChunkedDataError

from stream_proxy.upstream.chunked import ChunkedDecoder


def decode(
    decoder_class: type[_ChunkedTransferDecoder], reads: list[bytes]
) -> tuple[list[bytes], list[bytes], str]:
    """Return the contents, the bytes behind the last chunk, and the final state or error."""
    contents: list[bytes] = []
    after: list[bytes] = []
    decoder = decoder_class(contents.append, after.append)
    try:
        for read in reads:
            decoder.dataReceived(read)
            if after:
                break
    except _MalformedChunkedDataError:
        return contents, after, "malformed"
    return contents, after, decoder.state


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """Split `body` at these places."""
    ends = sorted(place % (len(body) + 1) for place in places)
    return [body[a:b] for a, b in zip([0, *ends], [*ends, len(body)], strict=True)]


CHUNK = st.one_of(
    st.binary(min_size=1, max_size=40).map(lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
    st.binary(min_size=1, max_size=40).map(lambda data: b"%04X;a=b\r\n%b\r\n" % (len(data), data)),
    st.sampled_from(
        [
            b"0x5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"0\r\nX: y\r\n\r\n",
            b"\r\n",
            b"5\r\nhello\n\n",
            b"-1\r\n\r\n",
            b"5 \r\nhello\r\n",
            b"x\r\n",
        ]
    ),
    st.binary(max_size=6),
)


class ChunkedTests(TestCase):
    """The shortcut compared with Twisted's decoder."""

    @given(st.lists(CHUNK, max_size=8), st.lists(st.integers(0, 500), max_size=6))
    def test_same_as_twisted(self, chunks: list[bytes], places: list[int]) -> None:
        """Any bytes, split anywhere, have the same contents, end and errors."""
        reads = cut(b"".join(chunks), places)
        contents, after, state = decode(ChunkedDecoder, reads)
        expected, expected_after, expected_state = decode(_ChunkedTransferDecoder, reads)
        self.assertEqual(
            (b"".join(contents), after, state), (b"".join(expected), expected_after, expected_state)
        )

    def test_one_read(self) -> None:
        """The complete chunks of a read are delivered together."""
        body = b"3\r\nabc\r\n4\r\ndefg\r\n5\r\nhi"
        self.assertEqual(
            decode(ChunkedDecoder, [body, b"jkl\r\n1\r\nm\r\n1\r\nn\r\n"])[0],
            [b"abcdefg", b"hi", b"jkl", b"mn"],
        )

    def test_end(self) -> None:
        """Bytes behind the last chunk are returned."""
        self.assertEqual(
            decode(ChunkedDecoder, [b"1\r\na\r\n0\r\n\r\nHTTP/1.1"]), ([b"a"], [b"HTTP/1.1"], "FINISHED")
        )
