"""Writing of captured bodies as JSON, in steps of which none is large. Sans-I/O."""

from __future__ import annotations

import codecs
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

import msgspec

from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.capture.bodies import Body


def members(values: Mapping[str, object]) -> bytes:
    """Return the members of a JSON object, without its braces."""
    return msgspec.json.encode(values)[1:-1]


def text(value: bytes) -> str:
    """Return a part of a head as text."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def pairs(fields: Iterable[RawHeader]) -> list[tuple[str, str]]:
    """Return header fields as text."""
    return [(text(name), text(value)) for name, value in fields]


def moment(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(begin: float | None, end: float | None) -> float:
    """Return the time between two steps, at least 0; 0 if one of them has not happened."""
    return 0.0 if begin is None or end is None else max(0.0, round((end - begin) * 1000, 3))


def as_string(body: Body) -> Iterator[bytes]:
    """Yield the inside of a JSON string: the text of a body, or else its bytes in Base64."""
    if not body.is_text:
        yield from as_base64(body)
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for _, piece in body.pieces:
        yield msgspec.json.encode(decoder.decode(piece))[1:-1]
    yield msgspec.json.encode(decoder.decode(b"", True))[1:-1]


def as_base64(body: Body) -> Iterator[bytes]:
    """Yield a body in Base64."""
    rest = b""
    for _, piece in body.pieces:
        piece = rest + piece
        whole = len(piece) - len(piece) % 3
        rest = piece[whole:]
        yield b64encode(piece[:whole])
    yield b64encode(rest)


def as_pieces(body: Body, began: float) -> Iterator[bytes]:
    """Yield the inside of a JSON array: for each piece its milliseconds and its text, or its Base64."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    separator = b""
    for at, piece in body.pieces:
        content = decoder.decode(piece) if body.is_text else b64encode(piece).decode("ascii")
        yield separator + msgspec.json.encode([milliseconds(began, at), content])
        separator = b","
    rest = decoder.decode(b"", True) if body.is_text else ""
    if rest:
        yield separator + msgspec.json.encode([milliseconds(began, body.pieces[-1][0]), rest])
