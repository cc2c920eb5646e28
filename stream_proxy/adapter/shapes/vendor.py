"""The row that a service has in the table of vendors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from stream_proxy.adapter.shapes.extracted import Extracted
from stream_proxy.lenient_json import JSON, JSONObject


@dataclass(frozen=True)
class Vendor:
    """One row: the meaning of a service's payloads. A column left out has nothing to tell.

    Rows are asked for ``extract`` and ``announces_end`` in the order of the table, until one knows. For all
    other columns every row is asked, whichever extracts: services borrow these fields from each other. Each
    column therefore recognises a payload itself, and is wrong rather by silence than by guessing.
    """

    name: str
    _: KW_ONLY
    #: Text, reasoning and tool calls; ``None`` if the payload is not of this service.
    extract: Callable[[JSONObject], Extracted | None] | None = None
    #: The same by the event's name and data, for payloads that say nothing by themselves.
    by_event: Callable[[str, JSON], Extracted | None] | None = None
    #: Whether streams with this payload mark their end, so that one without the mark was cut off.
    announces_end: Callable[[JSONObject], bool | None] | None = None
    #: Whether the payload is the last one.
    ends: Callable[[JSONObject], bool] | None = None
    #: Whether the text is new even at the end, where other services repeat the whole of it.
    is_delta: Callable[[JSONObject], bool] | None = None
    #: A text that replaces all that came before.
    replacement: Callable[[JSONObject], str | None] | None = None
    #: Why the response ended, where no field with a usual name says so.
    finish: Callable[[JSONObject], JSON] | None = None
    #: Token counts, where no object with a usual name holds them.
    usage: Callable[[JSONObject], JSONObject | None] | None = None
    #: An error, where no ``error`` holds it.
    error: Callable[[JSONObject], JSON] | None = None


def tagged(key: str, *tags: str) -> Callable[[JSONObject], bool]:
    """Return a test of whether a payload's kind, under `key`, is one of `tags`."""
    return lambda payload: payload.get(key) in tags
