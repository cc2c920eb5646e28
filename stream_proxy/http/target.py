"""Request targets: which ones may be forwarded, and in which form."""

from __future__ import annotations

import re

_TARGET = re.compile(rb"[\x21-\x7e]+")


def origin_form(target: bytes) -> bytes | None:
    """Return path and query of a request target (RFC 9112 section 3.2); ``None`` if it must not be forwarded.

    Scheme and host of a target in absolute form are ignored: the rule alone decides where a request goes.
    """
    if not _TARGET.fullmatch(target):
        return None
    if target.startswith(b"/"):
        return target
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return None
    start = min((place for mark in b"/?#" if (place := rest.find(mark)) >= 0), default=len(rest))
    if start == 0:
        return None
    return rest[start:] if rest[start:].startswith(b"/") else b"/" + rest[start:]
