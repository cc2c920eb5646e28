"""Heads of requests (RFC 9112 section 3), written exactly as they are handed in. Sans-I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stream_proxy.http.headers import FIELD_TEXT, TOKEN, RawHeader

#: Length of a body that is not known before its end.
UNKNOWN = -1

_HEAD = re.compile(rb"%b [\x21-\x7e]++ HTTP/1\.1\r\n(?:%b:%b\r\n)*+\r\n" % (TOKEN, TOKEN, FIELD_TEXT))
_EXPECTING_BODY = (b"POST", b"PUT")


def request_head(
    method: bytes, target: bytes, host: bytes, length: int | None, fields: Iterable[RawHeader]
) -> bytes:
    """Return the head of a request.

    :param length: of the body, :data:`UNKNOWN` for a chunked one, ``None`` for no body.
    :param fields: all but ``Host`` and the framing.
    :raises ValueError: another server would read other lines.
    """
    if length is None:
        framing = b"Content-Length: 0\r\n" if method in _EXPECTING_BODY else b""
    elif length == UNKNOWN:
        framing = b"Transfer-Encoding: chunked\r\n"
    else:
        framing = b"Content-Length: %d\r\n" % length
    lines = [b"%b: %b\r\n" % field for field in fields]
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (method, target, host, framing, b"".join(lines))
    expected = len(lines) + (4 if framing else 3)
    if _HEAD.fullmatch(head) is None or head.count(b"\n") != expected:
        raise ValueError("the request has a method, a target or a field that cannot be sent")
    return head
