"""Tests of the decoders for compressed responses."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise
from unittest import TestCase

from hypothesis import example, given
from hypothesis import strategies as st

from stream_proxy.errors import APIError
from stream_proxy.http.content_coding import ContentDecoder, content_codings, decoder_for

cuts = st.lists(st.integers(0, 3000), max_size=5)


def raw_deflate(data: bytes) -> bytes:
    """Compress without zlib's header, as some servers do."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def decoder(coding: bytes) -> ContentDecoder:
    """Return the decoder of one coding."""
    found = decoder_for([coding] if coding else [])
    assert found is not None
    return found


def decoded(coding: bytes, *parts: bytes) -> bytes:
    """Return the pieces that a decoder makes of these reads."""
    content = decoder(coding)
    return b"".join(piece for part in parts for piece in content.pieces(part))


class NameTests(TestCase):
    """``Content-Encoding`` fields."""

    def test_names(self) -> None:
        """Codings come from every field, in order and lower case, without ``identity``."""
        self.assertEqual(content_codings([b"GZIP, identity", b" br ,", b""]), [b"gzip", b"br"])
        self.assertEqual(content_codings([]), [])

    def test_unknown(self) -> None:
        """There is no decoder for other codings, nor for several at once."""
        for codings in ([b"br"], [b"zstd"], [b"gzip", b"gzip"], [b"deflate", b"gzip"], [b"x"]):
            self.assertIsNone(decoder_for(codings))


class DecodingTests(TestCase):
    """Output of the decoders."""

    @given(st.binary(max_size=2000), st.sampled_from([b"", b"gzip", b"x-gzip", b"deflate", b"raw"]), cuts)
    @example(b"", b"raw", [])
    def test_any_split(self, data: bytes, coding: bytes, cuts: list[int]) -> None:
        """The same bytes come out wherever the reads split."""
        packed = {
            b"": lambda: data,
            b"deflate": lambda: zlib.compress(data),
            b"raw": lambda: raw_deflate(data),
        }.get(coding, lambda: gzip.compress(data))()
        places = [0, *sorted(cut % (len(packed) + 1) for cut in cuts), len(packed)]
        parts = [packed[start:end] for start, end in pairwise(places)]
        self.assertEqual(decoded(b"deflate" if coding == b"raw" else coding, *parts), data)

    def test_byte_by_byte(self) -> None:
        """A flushed piece comes out as soon as its last byte is there."""
        packer = zlib.compressobj(wbits=31)
        first = packer.compress(b"first") + packer.flush(zlib.Z_SYNC_FLUSH)
        content = decoder(b"gzip")
        got = b"".join(piece for byte in first for piece in content.pieces(bytes([byte])))
        self.assertEqual(got, b"first")

    def test_large_flush(self) -> None:
        """A large piece that was compressed to a few bytes comes out at once as well."""
        for size in range(131_000, 131_200, 7):
            packer = zlib.compressobj(wbits=31)
            packed = packer.compress(b"\0" * size) + packer.flush(zlib.Z_SYNC_FLUSH)
            self.assertEqual(len(decoded(b"gzip", packed)), size)

    def test_members(self) -> None:
        """Several gzip members, one after the other, are one stream."""
        packed = gzip.compress(b"one ") + gzip.compress(b"two")
        self.assertEqual(decoded(b"gzip", packed), b"one two")
        self.assertEqual(decoded(b"gzip", *(bytes([byte]) for byte in packed)), b"one two")

    def test_bytes_after_the_end(self) -> None:
        """Bytes behind the end of a deflate stream are ignored."""
        for packed in (zlib.compress(b"data"), raw_deflate(b"data")):
            self.assertEqual(decoded(b"deflate", packed + b"rest", b"more"), b"data")

    def test_bound(self) -> None:
        """A bomb comes out in pieces of at most 16 KiB, whether they are taken or not."""
        bomb = gzip.compress(b"\0" * 50_000_000)
        pieces = iter(decoder(b"gzip").pieces(bomb))
        self.assertEqual([len(next(pieces)) for _ in range(3)], [16_384] * 3)
        self.assertEqual(sum(map(len, pieces)), 50_000_000 - 3 * 16_384)

    def test_exact_piece(self) -> None:
        """Data of just one piece, and of one byte more or less, comes out whole."""
        for size in (16_383, 16_384, 16_385, 65_536):
            data = bytes(number % 251 for number in range(size))
            for coding, packed in ((b"gzip", gzip.compress(data)), (b"deflate", zlib.compress(data))):
                self.assertEqual(decoded(coding, packed), data)

    def test_damaged(self) -> None:
        """Data of another coding than announced makes a 502."""
        for coding, data in (
            (b"gzip", b"data: plain\n\n"),
            (b"gzip", gzip.compress(b"x" * 99)[:-8] + b"\0" * 8),
            (b"deflate", b"data: plain\n\n"),
            (b"gzip", gzip.compress(b"one") + b"\x1f\x8brubbish, but meant as a member"),
        ):
            with self.assertRaises(APIError) as caught:
                decoded(coding, data)
            self.assertEqual((caught.exception.status, caught.exception.type), (502, "upstream_error"))


class LimitTests(TestCase):
    """How much a compressed body may hold."""

    def test_limit(self) -> None:
        """A body is decoded up to the limit; a byte more makes a 502 that names it and forbids a retry."""
        for coding, packed in ((b"gzip", gzip.compress(b"x" * 99)), (b"deflate", zlib.compress(b"x" * 99))):
            content = decoder_for([coding], 99)
            assert content is not None
            self.assertEqual(b"".join(content.pieces(packed)), b"x" * 99)
            content = decoder_for([coding], 98)
            assert content is not None
            with self.assertRaises(APIError) as caught:
                list(content.pieces(packed))
            self.assertEqual((caught.exception.status, caught.exception.should_retry), (502, False))
            self.assertIn("98 bytes that maxDecodedBytes allows", caught.exception.message)

    def test_all_of_it(self) -> None:
        """The limit holds for all reads and all members together."""
        content = decoder_for([b"gzip"], 100)
        assert content is not None
        for _ in range(3):
            list(content.pieces(gzip.compress(b"x" * 33)))
        with self.assertRaises(APIError):
            list(content.pieces(gzip.compress(b"xx")))

    def test_plain(self) -> None:
        """The limit does not hold for an uncompressed body, which others bound."""
        content = decoder_for([], 1)
        assert content is not None
        self.assertEqual(list(content.pieces(b"xx")), [b"xx"])


class TailTests(TestCase):
    """Bytes behind the end of a compressed body."""

    def test_gzip(self) -> None:
        """Junk behind the end of a gzipped body is ignored, however it comes; the body is whole."""
        packed = gzip.compress(b"one ") + gzip.compress(b"two")
        for junk in (b"junk", b"\0" * 600, b"\x1f", b"\x1fjunk", b"\r\n" + gzip.compress(b"three")):
            for parts in ((packed + junk,), (packed, junk), [bytes([byte]) for byte in packed + junk]):
                content = decoder(b"gzip")
                got = b"".join(piece for part in parts for piece in content.pieces(part))
                self.assertEqual((got, content.ended), (b"one two", True))

    def test_cut_member(self) -> None:
        """A further member that is cut off is not the end."""
        content = decoder(b"gzip")
        list(content.pieces(gzip.compress(b"one") + gzip.compress(b"two")[:-1]))
        self.assertFalse(content.ended)

    def test_deflate(self) -> None:
        """Bytes behind a deflated body are dropped at no cost."""
        decoder = decoder_for([b"deflate"])
        assert decoder is not None
        self.assertEqual(list(decoder.pieces(zlib.compress(b"x"))), [b"x"])
        for _ in range(3):
            self.assertEqual(list(decoder.pieces(b"tail")), [])
        self.assertEqual(decoder._inflate.unused_data, b"")  # type: ignore[attr-defined]
