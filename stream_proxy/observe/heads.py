"""Heads of messages as they may be shown: without secrets, and bounded. Sans-I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.capture.secrets import BLANK, Secrets, blank_fields
from stream_proxy.printable import printable

#: The most bytes of a head that are shown.
MOST_BYTES = 4_096

#: Queries hold prompts, and keys under names that nobody knows.
_QUERY = re.compile(rb"\?[^\s,;]*")
#: Fields that hold URLs.
_URLS = frozenset({b"location", b"content-location", b"referer", b"link", b"refresh"})


def shown_head(
    fields: Iterable[RawHeader], known: Secrets | None = None, most: int = MOST_BYTES
) -> list[tuple[str, str]]:
    """Return names and values of fields, secrets blanked; what goes beyond the bound is cut.

    :param known: values that are secrets, wherever they stand.
    """
    shown = []
    for raw_name, raw_value in blank_fields(fields, () if known is None else (known,)):
        if raw_name.lower() in _URLS:
            raw_value = _QUERY.sub(b"?" + BLANK, raw_value)
        name = printable(raw_name.decode("latin-1"))
        value = printable(raw_value[:most].decode("utf-8", "backslashreplace"))
        most -= len(name) + len(value) + 4
        if most < 0:
            shown.append((name[:100], value[: max(0, len(value) + most)] + "…"))
            break
        shown.append((name, value))
    return shown
