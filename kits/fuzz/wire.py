"""Targets for framing and compression."""

from __future__ import annotations

import gzip
import zlib

from twisted.web.http import _ChunkedTransferDecoder, _MalformedChunkedDataError

from kits.fuzz.checks import Outcome, failed, require, same
from kits.fuzz.source import Source
from stream_proxy.errors import APIError
from stream_proxy.http.content_coding import content_codings, decoder_for
from stream_proxy.upstream.http1.chunked import ChunkedBody
from stream_proxy.websocket.frames import WHOLE_BYTES, FrameTracker


def frames(data: bytes) -> None:
    """The output of a frame tracker does not depend on how the bytes are cut."""
    source = Source(data)
    stream = _frames(source) if source.number(2) else source.rest()
    whole = _tracked([stream])
    same("depends on how it is cut", _tracked(source.reads(stream)), whole)


def _frames(source: Source) -> bytes:
    out = bytearray()
    while source.left > 3 and len(out) < 300_000:
        first = source.number(256)
        masked = source.number(2) * 0x80
        length = source.pick([0, 1, 2, 5, 125, 126, 300, WHOLE_BYTES, WHOLE_BYTES + 1])
        if length < 126 and source.number(4):
            out += bytes((first, masked | length))
        elif length < 65536 and source.number(4):
            out += bytes((first, masked | 126)) + length.to_bytes(2, "big")
        else:
            out += bytes((first, masked | 127)) + length.to_bytes(8, "big")
        out += bytes(4 if masked else 0) + bytes([source.number(256)]) * length
    return bytes(out)


def _tracked(reads: list[bytes]) -> Outcome:
    tracker, out, came = FrameTracker(), bytearray(), bytearray()
    for read in reads:
        came += read
        out += tracker.feed(read)
        require(came.startswith(out), "bytes that did not come in")
        require(len(tracker._held) <= WHOLE_BYTES + 14, "holds more than a frame", len(tracker._held))
    same("miscounted", tracker.octets, len(out))
    if tracker.close is not None:
        require(not tracker.inside_frame, "a close inside a frame")
        tracker.close.legal  # noqa: B018
        tracker.close.frame(masked=True)
    return bytes(out), tracker.messages, tracker.close, tracker.inside_frame


def chunked(data: bytes) -> None:
    """Our chunk decoder reads what Twisted's reads or refuses it, however the body is cut."""
    source = Source(data)
    stream = _chunks(source) if source.number(2) else source.rest()
    reads = source.reads(stream)
    ours = _dechunked(reads)
    if ours is not None:
        same("differs from Twisted", ours, _dechunked_by_twisted(reads))
    same("depends on how it is cut", ours, _dechunked([stream]))


def _chunks(source: Source) -> bytes:
    out = bytearray()
    while source.left > 2 and len(out) < 20_000:
        content = b"x" * source.number(40)
        size = source.pick([b"%x", b"%X", b"0%x", b"%x;a=b", b"+%x", b"0x%x", b"%x ", b"_%x"])
        end = source.pick([b"\r\n"] * 6 + [b"\n", b"\r"])
        out += (size if not source.number(4) else b"%x") % len(content) + end + content + end
    return bytes(
        out + source.pick([b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"", b"0\r\n"]) + source.pick([b"", b"more"])
    )


def _dechunked(reads: list[bytes]) -> Outcome | None:
    """Return the content, and whether the body has ended, with or without further bytes."""
    body, out = ChunkedBody(), bytearray()
    for number, read in enumerate(reads):
        out += body.feed(read)
        if body.fault is not None:
            return None
        if body.ended:
            return bytes(out), True, body.surplus or any(reads[number + 1 :])
    return bytes(out), False, False


def _dechunked_by_twisted(reads: list[bytes]) -> Outcome | None:
    out, rest = bytearray(), list[bytes]()
    decoder = _ChunkedTransferDecoder(out.extend, rest.append)
    try:
        for number, read in enumerate(reads):
            decoder.dataReceived(read)
            if rest:
                return bytes(out), True, bool(rest[0]) or any(reads[number + 1 :])
    except _MalformedChunkedDataError:
        return None
    return bytes(out), False, False


def coding(data: bytes) -> None:
    """Compressed bytes are decoded in small pieces and completely, or are rejected."""
    source = Source(data)
    codings = source.pick([[b"gzip"], [b"deflate"], [b"x-gzip"], []])
    kind = source.number(4)
    plain = source.rest() if kind else None
    payload = source.rest() if plain is None else _compressed(plain, codings, kind)
    if plain is not None and kind == 3 and payload:
        at = len(plain) % len(payload)  # one byte is corrupted
        payload = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
    whole = _inflated([payload], codings)
    cut = _inflated(source.reads(payload), codings)
    if whole[1] is None and cut[1] is None:
        same("depends on how it is cut", cut, whole)
    if plain is not None and kind != 3:
        same("not what was compressed", (whole[0], whole[1]), (plain, None))
    content_codings([data, b"gzip , identity,"])


def _compressed(plain: bytes, codings: list[bytes], kind: int) -> bytes:
    if not codings:
        return plain
    if codings == [b"deflate"]:
        if kind == 1:
            return zlib.compress(plain)
        raw = zlib.compressobj(wbits=-15)
        return raw.compress(plain) + raw.flush()
    half = len(plain) // 2
    return gzip.compress(plain[:half], mtime=0) + gzip.compress(plain[half:], mtime=0)


def _inflated(reads: list[bytes], codings: list[bytes]) -> Outcome:
    decoder = decoder_for(codings, 2**30)
    assert decoder is not None
    out = bytearray()
    try:
        for read in reads:
            for piece in decoder.pieces(read):
                require(len(piece) <= max(65_536, len(read)), "a large piece", len(piece))
                out += piece
                if len(out) > 4 * 2**20:
                    return b"", "much"
    except APIError as error:
        return b"", failed(error)
    return bytes(out), None, decoder.ended
