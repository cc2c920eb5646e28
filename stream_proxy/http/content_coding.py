"""Decoders for compressed responses, which work a bounded piece at a time.

The proxy asks for uncompressed streams; some upstreams compress them all the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import decoded_too_large, upstream_error
from stream_proxy.limits import MAX_HELD_BYTES

_PIECE_BYTES = 65_536
# Those of a compressed body are smaller: what it takes to work on the smallest events counts.
_INFLATED_BYTES = 16_384
_GZIP = (b"gzip", b"x-gzip")
# The first bytes of every gzip member (RFC 1952 section 2.3.1).
_MAGIC = b"\x1f\x8b"


class ContentDecoder(Protocol):
    """Decoder of one body."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes, at most 64 KiB at a time, and 16 KiB of a compressed body.

        :raises APIError: `data` is not what ``Content-Encoding`` says, or decodes to too much.
        """

    @property
    def ended(self) -> bool:
        """Whether the body may end here."""


def content_codings(values: Iterable[bytes]) -> list[bytes]:
    """Return the codings that ``Content-Encoding`` fields name, in lower case, without ``identity``."""
    names = (part.strip().lower() for value in values for part in value.split(b","))
    return [name for name in names if name and name != b"identity"]


def decoder_for(codings: list[bytes], max_bytes: int = MAX_HELD_BYTES) -> ContentDecoder | None:
    """Return a decoder for these codings (RFC 9110 section 8.4.1), or ``None`` if there is none.

    :param max_bytes: the most that a compressed body may decode to.
    """
    if not codings:
        return _Identity()
    if len(codings) == 1 and codings[0] in _GZIP:
        return _Inflate(max_bytes, gzip=True)
    if codings == [b"deflate"]:
        return _Inflate(max_bytes, gzip=False)
    return None


class _Identity:
    ended = True

    def pieces(self, data: bytes) -> Iterator[bytes]:
        if len(data) <= _PIECE_BYTES:
            yield data
            return
        for at in range(0, len(data), _PIECE_BYTES):
            yield data[at : at + _PIECE_BYTES]


class _Inflate:
    def __init__(self, max_bytes: int, *, gzip: bool) -> None:
        self._gzip = gzip
        self._inflate = zlib.decompressobj(31) if gzip else None
        self._magic = b""  # bytes that may be the start of another member
        self._over = False  # any further bytes are not part of the body
        self._max_bytes = max_bytes
        self._count = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        try:
            yield from self._pieces(data)
        except zlib.error:
            raise upstream_error(
                "The upstream's compressed stream cannot be decompressed.", ErrorCode.UPSTREAM_MALFORMED
            ) from None

    @property
    def ended(self) -> bool:
        return self._inflate is None or self._inflate.eof

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        while not self._over:
            if self._inflate is None or self._inflate.eof:
                data = self._begin(data)
                if not data or self._inflate is None:
                    return
            piece = self._inflate.decompress(data, _INFLATED_BYTES)
            data = self._inflate.unconsumed_tail
            if piece:
                self._count += len(piece)
                if self._count > self._max_bytes:
                    raise decoded_too_large(self._max_bytes)
                yield piece
            if self._inflate.eof:
                data = self._inflate.unused_data
            elif not data and len(piece) < _INFLATED_BYTES:
                return

    def _begin(self, data: bytes) -> bytes:
        """Prepare for the member that begins with `data`; return as much of that as belongs to it."""
        if self._inflate is None:
            if data:
                # "deflate" is the zlib format, but some servers send it without zlib's header.
                self._inflate = zlib.decompressobj(15 if data[0] & 0x0F == 8 else -15)
            return data
        if (
            self._gzip
        ):  # allows several members, one after the other; in practice there is junk behind the last
            data = self._magic + data
            if data.startswith(_MAGIC):
                self._magic = b""
                self._inflate = zlib.decompressobj(31)
                return data
            if _MAGIC.startswith(data):
                self._magic = data
                return b""
        self._over = True
        return b""
