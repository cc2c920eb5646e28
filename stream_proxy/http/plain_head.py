"""Plain heads: requests that are whole in one piece and leave nothing to doubt, read by one expression.

This grammar only says what is surely harmless. Everything else is left to the reader that knows every rule,
so no rule is written here a second time, and whatever is plain must read the same there.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stream_proxy.http.headers import FIELD_LINE, FIELD_TEXT, TOKEN, RawHeader
from stream_proxy.http.host import parse_authority

_HEAD = re.compile(rb"(%b) ([\x21-\x7e]++) HTTP/1\.1\r\n((?:%b:%b\r\n)*+)\r\n" % (TOKEN, TOKEN, FIELD_TEXT))
_LENGTH = re.compile(rb"[0-9]{1,18}")
#: Fields that a server does more with than pass them on.
_SPECIAL = frozenset({b"host", b"content-length", b"connection", b"transfer-encoding", b"upgrade", b"expect"})


class PlainHead(NamedTuple):
    """Head of a request of HTTP/1.1 on a connection that is kept."""

    method: bytes
    target: bytes
    #: Names and values in the order and the spelling in which they came.
    fields: list[RawHeader]
    #: The ``Content-Length``, if there is one; the body has no other framing.
    length: int | None
    #: How many bytes the head has.
    size: int


def plain_head(data: bytes, most_bytes: int, most_fields: int) -> PlainHead | None:
    """Return the head that `data` begins with, or ``None`` for one that is not whole, or not plain.

    :param most_bytes: the largest head.
    :param most_fields: the most fields.
    """
    found = _HEAD.match(data)
    if found is None or found.end() > most_bytes:
        return None
    method, target, block = found.groups()
    if b" \r\n" in block or b"\t\r\n" in block:
        return None  # blanks that do not belong to the value before them
    fields = FIELD_LINE.findall(block)
    if len(fields) > most_fields:
        return None
    host: bytes | None = None
    length: bytes | None = None
    for name, value in fields:
        lower = name.lower()
        if lower not in _SPECIAL:
            continue
        match lower:
            case b"host" if host is None:
                host = value
            case b"content-length" if length is None and _LENGTH.fullmatch(value):
                length = value
            case b"connection" if value.lower() == b"keep-alive":
                pass
            case _:
                return None
    if host is None or parse_authority(host) is None:
        return None
    return PlainHead(method, target, fields, None if length is None else int(length), found.end())
