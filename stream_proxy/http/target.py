"""Request targets: which may be forwarded, and in what form."""

from __future__ import annotations

import re

_TARGET = re.compile(rb"[\x21-\x7e]+")


def origin_form(target: bytes) -> bytes | None:
    """Path and query of a request target (RFC 9112 section 3.2), or ``None`` if it is not to be forwarded.

    A target in absolute form counts with its path and query alone: where a request goes is the rule's affair.
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
