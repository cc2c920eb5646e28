"""Request targets: which ones may be forwarded, and in which form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, invalid_request

# A gateway may decode a path, and what is behind it once more. Nobody means well who encodes it more often.
_MOST_DECODINGS = 4
_SLASHES = re.compile(rb"[/\\]")
# Some servers drop these at the end of a name, or take a NUL for the end.
_DROPPED = bytes(range(33))
_ABSOLUTE = re.compile(rb"https?://(?P<authority>[^/?#]*)", re.IGNORECASE)
_TARGET = re.compile(rb"[\x21-\x7e]+")


def authority(target: bytes) -> bytes | None:
    """Return the authority of a target in absolute form, which counts in place of ``Host``."""
    if target.startswith(b"/"):
        return None
    match = _ABSOLUTE.match(target)
    return match["authority"] if match is not None else None


def origin_form(target: bytes) -> bytes | None:
    """Return path and query of a request target (RFC 9112 section 3.2); ``None`` if it must not be forwarded.

    Scheme and host of a target in absolute form are ignored: the rule alone decides where a request goes.
    """
    if not _TARGET.fullmatch(target):
        return None
    if target.startswith(b"/"):
        return target
    match = _ABSOLUTE.match(target)
    if match is None or not match["authority"]:
        return None
    rest = target[match.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def climbs(target: bytes) -> bool:
    """Report whether any server could take the path of `target` for one above its start.

    Servers differ in what they decode before they resolve ``..``, in whether an empty segment counts, and in
    whether a backslash is a slash and a semicolon ends a name. Each segment counts as its worst reading.
    """
    path = target.partition(b"?")[0]
    if b".." not in path and b"%" not in path:
        return False
    depth = 0
    for names in _readings(path):
        up = names.count(b"..")
        depth += -up if up else any(name not in (b"", b".") for name in names)
        if depth < 0:
            return True
    return False


def has_dots(target: bytes) -> bool:
    """Report whether any server could find ``.`` or ``..`` among the segments of the path of `target`."""
    path = target.partition(b"?")[0]
    return any(name in (b".", b"..") for names in _readings(path) for name in names)


def climbing_target() -> APIError:
    """Return a 400: the path leads out of the upstream's URL."""
    return invalid_request(
        "The path leads above the upstream's base URL; send it without dot segments.",
        ErrorCode.INVALID_TARGET,
    )


def _readings(path: bytes) -> Iterator[list[bytes]]:
    """Yield for each segment the names that a server could find in it."""
    for segment in path.split(b"/"):
        for _ in range(_MOST_DECODINGS):
            decoded = unquote_to_bytes(segment)
            if decoded == segment:
                break
            segment = decoded
        else:
            segment = b".."
        yield [name.partition(b";")[0].strip(_DROPPED) for name in _SLASHES.split(segment)]
