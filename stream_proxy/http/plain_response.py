"""Heads of responses whose fields are given as they are to go out."""

from __future__ import annotations

from collections.abc import Sequence

from stream_proxy.http.headers import RawHeader

#: Fields that the server writes itself.
_SERVERS_OWN = frozenset({b"connection", b"transfer-encoding"})


def plain_response_head(
    start: bytes, fields: Sequence[RawHeader], *, chunks: bool, bodiless: bool, last: bool
) -> tuple[bytes, bool] | None:
    """Return the bytes of a head, and whether a body in chunks follows.

    ``None``: the fields hold what frames a message, or a line break, and have to be looked at one by one.

    :param start: the status line, without its end.
    :param chunks: the client knows chunks.
    :param bodiless: no body follows, whatever the fields say.
    :param last: the connection closes after this response.
    """
    lines = [start]
    has_length = False
    for name, value in fields:
        lower = name.lower()
        if lower in _SERVERS_OWN:
            return None
        if lower == b"content-length":
            has_length = True
        lines.append(b"%b: %b" % (name, value))
    chunked = chunks and not (bodiless or has_length)
    if last and (bodiless or has_length):
        lines.append(b"Connection: close")
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    count = len(lines)
    if head.count(b"\n") != count or head.count(b"\r") != count:
        return None
    return head, chunked
