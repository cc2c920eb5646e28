"""Texts of a Responses stream that come in pieces, and the events that bring them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from stream_proxy.aggregate.pieces import PIECE_BYTES, PieceEncoder
from stream_proxy.json_steps import Steps, decode_members_steps
from stream_proxy.lenient_json import decode_json, decode_members, encode_json, is_integer

ADDED = "response.output_item.added"
DONE = "response.output_item.done"
OUTPUT_TEXT = "response.output_text"
#: Strings of items, by the events that bring them in pieces (".delta") and whole (".done").
STRINGS = {
    "response.function_call_arguments": "arguments",
    "response.mcp_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
    "response.code_interpreter_call_code": "code",
}
#: Parts of items by the same events: the item's type, its member, the part's type, the member for the text.
PARTS = {
    OUTPUT_TEXT: ("message", "content", "output_text", "text"),
    "response.refusal": ("message", "content", "refusal", "refusal"),
    "response.reasoning_text": ("reasoning", "content", "reasoning_text", "text"),
    "response.reasoning_summary_text": ("reasoning", "summary", "summary_text", "text"),
}
#: The types of the items that these events are about.
TYPES = {stem: stem.removeprefix("response.").rpartition("_")[0] for stem in STRINGS} | {
    stem: type for stem, (type, *_) in PARTS.items()
}
#: The events that items are made of.
ITEM_EVENTS = frozenset(
    {ADDED, DONE, *(f"{stem}.{end}" for stem in (*STRINGS, *PARTS) for end in ("delta", "done"))}
)
NULL = Raw(b"null")
#: The id of what has none.
NO_ID = b""


class _Delta(Struct):
    """What is needed of an event that brings a piece."""

    delta: str


_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_deltas = msgspec.json.Decoder(list[tuple[_Delta]]).decode
# Line ends are not allowed within JSON strings: a piece that is no JSON by itself cannot become it in a list.
_BETWEEN = b"\n],[\n"


class Text:
    """A string that comes in pieces, and perhaps once more as a whole; it is held as JSON without quotes."""

    __slots__ = ("logprobs", "value", "whole")

    def __init__(self) -> None:
        self.value = bytearray()
        self.whole = False
        self.logprobs = b"[]"

    def add(self, value: bytes, *, whole: bool) -> int:
        """Append a piece, or replace all of them with the whole; return how much longer the text became."""
        if self.whole and not whole:
            return 0
        before = len(self.value)
        if whole:
            self.value.clear()
            self.whole = True
        self.value += value
        return len(self.value) - before

    def add_deltas(self, events: list[bytes]) -> int:
        """Append the pieces of events that bring one each, given their JSON; return as `add` does."""
        try:
            deltas = _decode_deltas(b"[[%b]]" % _BETWEEN.join(events))
        except (ValueError, RecursionError):
            deltas = []
        if len(deltas) == len(events):
            pieces = encode_json("".join([piece.delta for (piece,) in deltas]))[1:-1]
        elif len(events) == 1:
            pieces = _delta(events[0])
        else:
            return sum([self.add_deltas([event]) for event in events])
        self.value += pieces
        return len(pieces)

    def add_long_delta(self, members: Mapping[str, Raw], event: bytes) -> Steps[int]:
        """Append the piece of a long event as `add_deltas` does, in steps, given its members and its JSON."""
        before = len(self.value)
        try:
            text = _decode_delta(event).delta
        except (ValueError, RecursionError):
            self.value += _piece_of(members)
        else:
            yield
            for at in range(0, len(text), PIECE_BYTES):
                self.value += encode_json(text[at : at + PIECE_BYTES])[1:-1]
        return len(self.value) - before

    def json(self) -> Raw | bytearray:
        """Return the string as JSON; a long one is not copied, but returned as it is, without quotes."""
        return self.value if len(self.value) > PIECE_BYTES else Raw(b'"' + self.value + b'"')


class TextRun:
    """A text that several events add to, one after the other, and how to tell these events without decoding.

    :param kind: their type.
    :param item: the member that tells which item they are about, as the first of them spelled it. Within a
        string a quotation mark is escaped, so that no text can hold such a member.
    :param part: the same for the part of the item; empty if it has no parts.
    :param both: what holds the two, and probably stands in all of these events.
    """

    __slots__ = ("both", "item", "kind", "part", "text")

    def __init__(self, kind: str, item: bytes, part: bytes, both: bytes, text: Text) -> None:
        self.kind = kind
        self.item = item
        self.part = part
        self.both = both
        self.text = text

    def has(self, events: list[bytes]) -> bool:
        """Report whether all of `events`, which are of its kind, belong to it."""
        both = self.both
        at = events[-1].find(both)
        # Mostly all have it at the same place, where to look for it is much faster than to search.
        if at >= 0 and all([event.startswith(both, at) or both in event for event in events]):  # noqa: C419
            return True
        return all(self.item in event and self.part in event for event in events)


def run_of(kind: str, members: Mapping[str, Raw], data: bytes, text: Text) -> TextRun | None:
    """Return the run that an event begins, ``None`` if nothing in it tells which text it is about.

    :param members: the members of its JSON, which is `data`.
    """
    item = _span(("item_id", "output_index"), members, data)
    part = _span(("content_index", "summary_index"), members, data)
    if item is None:
        return None
    marks = [item] if part is None else [item, part]
    both = data[min(mark.start for mark in marks) : max(mark.stop for mark in marks)]
    return TextRun(kind, data[item], b"" if part is None else data[part], both, text)


def members_of(data: bytes) -> Steps[dict[str, Raw]]:
    """Return, in steps, the members of the JSON object in `data`, as `decode_members` does."""
    return decode_members_steps(data, lambda value: PieceEncoder().pieces(value))


def value_of(members: Mapping[str, Raw], name: str) -> object:
    """Return the decoded member `name`, ``None`` if it is missing."""
    value: object = decode_json(bytes(members.get(name, NULL)))
    return value


def item_in(members: Mapping[str, Raw]) -> bytes:
    """Return the JSON of an event's item, empty if it has none."""
    body = bytes(members.get("item", NULL))
    return body if body.startswith(b"{") else b""


def id_in(value: Raw | None) -> bytes:
    id = NO_ID if value is None else bytes(value)
    return id if id.startswith(b'"') and id != b'""' else NO_ID


def index_in(members: Mapping[str, Raw], default: int) -> int:
    return number_in(bytes(members.get("output_index", NULL)), default)


def number_in(value: bytes, default: int) -> int:
    number = decode_json(value)
    return number if is_integer(number) else default


def _span(names: tuple[str, ...], members: Mapping[str, Raw], data: bytes) -> slice | None:
    """Return where the first of the members `names` stands in `data`, ``None`` if it has none of them."""
    for name in names:
        if name in members:
            for blank in (b"", b" "):
                spelled = b'"%b":%b%b' % (name.encode(), blank, bytes(members[name]))
                start = data.find(spelled)
                end = start + len(spelled) + 1
                if start >= 0 and data[end - 1 : end] in (b",", b"}"):
                    return slice(start, end)
            return slice(0, len(data))
    return None


def _delta(event: bytes) -> bytes:
    try:
        return _piece_of(decode_members(event))
    except ValueError:
        return b""


def _piece_of(members: Mapping[str, Raw]) -> bytes:
    delta = bytes(members.get("delta", NULL))
    return delta[1:-1] if delta.startswith(b'"') else b""
