"""Which header fields leave no doubt about where a message ends (RFC 9110 section 5.5, RFC 9112 section 6).

Twisted is lenient in a few places where another server or proxy on the way may read something else.
"""

from __future__ import annotations

import re
from collections.abc import Collection

# Of these only the tab may be in a field.
_CONTROLS = bytes({*range(32), 127} - {9})
# Of a length: more does not fit everywhere.
_MOST_DIGITS = 18
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] [1-9][0-9]{2}(?: .*)?")


def has_controls(line: bytes) -> bool:
    """Whether a line of a head, without its end, has something in it that ends lines or strings elsewhere."""
    return len(line.translate(None, _CONTROLS)) != len(line)


def is_status_line(line: bytes) -> bool:
    """Whether an answer can begin like this."""
    return _STATUS_LINE.fullmatch(line) is not None


def is_length(values: Collection[bytes]) -> bool:
    """Whether the values of ``Content-Length`` in an answer say one number."""
    parts = [part.strip(b" \t") for value in values for part in value.split(b",")]
    if not all(part.isdigit() and len(part) <= _MOST_DIGITS for part in parts):
        return False
    return len({int(part) for part in parts}) == 1


def is_doubtful(field: bytes, version: bytes) -> bool:
    """Whether a field of a request could mean different things to different readers.

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
    """Whether a line would go on with the field before it, which some take for a field of its own."""
    return line.startswith((b" ", b"\t"))


def is_trailer(line: bytes) -> bool:
    """Whether a line can stand after the last chunk."""
    name, colon, _ = line.partition(b":")
    return bool(colon and name) and not is_folded(line) and not is_doubtful(line, b"")
