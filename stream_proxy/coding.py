"""Undoing the compression of a stream that was not asked to be compressed, a bounded piece at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from stream_proxy.errors import decoded_too_large, upstream_error

_PIECE_BYTES = 65_536
_GZIP = (b"gzip", b"x-gzip")


class ContentDecoder(Protocol):
    """Takes what came over the network and gives back what was meant."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes, at most 64 KiB at a time.

        :raises APIError: if `data` is not what its ``Content-Encoding`` says.
        """

    @property
    def ended(self) -> bool:
        """Whether what was decoded so far may be all of it."""


def content_codings(values: Iterable[bytes]) -> list[bytes]:
    """The codings that ``Content-Encoding`` fields name, in lower case, without ``identity``."""
    names = (part.strip().lower() for value in values for part in value.split(b","))
    return [name for name in names if name and name != b"identity"]


def decoder_for(codings: list[bytes], max_bytes: int) -> ContentDecoder | None:
    """A decoder for these codings (RFC 9110 section 8.4.1), or ``None`` if there is none.

    :param max_bytes: how much an answer may decode to; more is an error.
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
        yield data


class _Inflate:
    def __init__(self, max_bytes: int, *, gzip: bool) -> None:
        self._left = max_bytes
        self._max_bytes = max_bytes
        self._gzip = gzip
        self._inflate = zlib.decompressobj(31) if gzip else None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        try:
            yield from self._pieces(data)
        except zlib.error:
            raise upstream_error("The upstream's compressed stream cannot be decompressed.") from None

    @property
    def ended(self) -> bool:
        return self._inflate is None or self._inflate.eof

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        if not self._gzip and self._inflate is not None and self._inflate.eof:
            return  # what follows the end is no part of it
        while data or self._inflate is not None:
            if self._inflate is None:
                # "deflate" is the zlib format, but some servers send it without zlib's header.
                self._inflate = zlib.decompressobj(15 if data[0] & 0x0F == 8 else -15)
            piece = self._inflate.decompress(data, _PIECE_BYTES)
            data = self._inflate.unconsumed_tail
            self._left -= len(piece)
            if self._left < 0:
                raise decoded_too_large(self._max_bytes)
            if piece:
                yield piece
            if self._inflate.eof:
                data = self._inflate.unused_data
                if not self._gzip or not data:
                    return
                self._inflate = zlib.decompressobj(31)  # gzip allows several members, one after the other
            elif not data and len(piece) < _PIECE_BYTES:
                return
