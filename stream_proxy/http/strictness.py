"""Checks against request smuggling: heads whose end, or whose body's end, two servers may see differently.

Twisted is lenient in a few places where another server or proxy on the way may read something else (RFC 9110
section 5.5, RFC 9112 section 6).
"""

from __future__ import annotations

import re
from collections.abc import Collection

# Control characters; the tab is the only one that a field may hold.
_CONTROLS = bytes({*range(32), 127} - {9})
# Digits of a length. More do not fit into the 64 bits that other servers count with.
_MOST_DIGITS = 18
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] [1-9][0-9]{2}(?: .*)?")


def has_controls(line: bytes) -> bool:
    """Report whether a line of a head, without its end, holds what may end a line or a string elsewhere."""
    return len(line.translate(None, _CONTROLS)) != len(line)


def is_status_line(line: bytes) -> bool:
    """Report whether a response can begin with this line."""
    return _STATUS_LINE.fullmatch(line) is not None


def is_length(values: Collection[bytes]) -> bool:
    """Report whether the values of a response's ``Content-Length`` are all the same number."""
    parts = [part.strip(b" \t") for value in values for part in value.split(b",")]
    if not all(part.isdigit() and len(part) <= _MOST_DIGITS for part in parts):
        return False
    return len({int(part) for part in parts}) == 1


def is_doubtful(field: bytes, version: bytes) -> bool:
    """Report whether a field of a request could mean different things to different servers.

    :param field: the whole line, without its end.
    :param version: of the request, like ``b"HTTP/1.1"``.
    """
    if has_controls(field):
        return True
    name, _, value = field.partition(b":")
    match name.lower():
        case b"transfer-encoding":
            return version != b"HTTP/1.1" or value.strip(b" \t").lower() != b"chunked"
        case b"content-length":
            return len(value.strip(b" \t")) > _MOST_DIGITS
    return False


def is_folded(line: bytes) -> bool:
    """Report whether a line continues the field before it, which some servers take for a field of its own."""
    return line.startswith((b" ", b"\t"))


def is_trailer(line: bytes) -> bool:
    """Report whether a line can be a trailer field, after the last chunk."""
    name, colon, _ = line.partition(b":")
    return bool(colon and name) and not is_folded(line) and not is_doubtful(line, b"")
