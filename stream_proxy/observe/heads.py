"""Heads of messages as they may be shown: without secrets, and bounded. Sans-I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stream_proxy.http.headers import RawHeader
from stream_proxy.printable import printable

#: The most bytes of a head that are shown.
MOST_BYTES = 4_096
BLANK = "***"

_SECRET = re.compile(r"auth|cookie|token|secret|key|session", re.IGNORECASE)
#: A subprotocol that holds a key, by which browsers authenticate to the Realtime API.
_KEY_PROTOCOL = re.compile(r"(openai-insecure-api-key\.)[^\s,]+", re.IGNORECASE)
#: Queries hold keys and prompts.
_QUERY = re.compile(r"\?[^\s,;]*")
#: Fields that hold URLs.
_URLS = frozenset({"location", "content-location", "referer", "link", "refresh"})


def shown_head(fields: Iterable[RawHeader], most: int = MOST_BYTES) -> list[tuple[str, str]]:
    """Return names and values of fields, secrets blanked; what goes beyond the bound is cut."""
    shown = []
    for raw_name, raw_value in fields:
        name = printable(raw_name.decode("latin-1"))
        value = _blanked(name.lower(), printable(raw_value[:most].decode("utf-8", "backslashreplace")))
        most -= len(name) + len(value) + 4
        if most < 0:
            shown.append((name[:100], value[: max(0, len(value) + most)] + "…"))
            break
        shown.append((name, value))
    return shown


def _blanked(name: str, value: str) -> str:
    if name == "sec-websocket-protocol":
        return _KEY_PROTOCOL.sub(rf"\1{BLANK}", value)
    if _SECRET.search(name) and not name.startswith("sec-websocket-"):
        return BLANK
    return _QUERY.sub(f"?{BLANK}", value) if name in _URLS else value
