"""Kind of a body, by its first bytes: some providers send streams as JSON, or JSON as streams."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from stream_proxy.lenient_json import BOM

_BLANK = b" \t\r\n"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


class BodyKind(Enum):
    """Verdict on the first bytes of a body."""

    EVENTS = auto()
    JSON = auto()
    OTHER = auto()
    UNDECIDED = auto()


def sniff(start: bytes, *, ended: bool) -> BodyKind:
    """Judge a body by its decoded `start`; `ended` means that there is no more to wait for."""
    if not start.startswith(BOM) and BOM.startswith(start[:3]) and not ended:
        return BodyKind.UNDECIDED
    start = start.removeprefix(BOM).lstrip(_BLANK)[:16]
    if start.startswith(b"{"):
        return BodyKind.JSON
    if start.startswith(_FIELDS):
        return BodyKind.EVENTS
    if not ended and any(field.startswith(start) for field in _FIELDS):
        return BodyKind.UNDECIDED
    return BodyKind.OTHER


def media_type(values: Sequence[bytes]) -> bytes:
    """Return the media type of ``Content-Type`` fields, in lower case, without parameters."""
    return values[0].partition(b";")[0].strip().lower() if values else b""
