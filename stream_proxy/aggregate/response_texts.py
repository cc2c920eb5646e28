"""Texts of a Responses stream that come in pieces."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from stream_proxy.aggregate.pieces import PIECE_BYTES
from stream_proxy.lenient_json import decode_json, decode_members, encode_json

NULL = Raw(b"null")


class _Delta(Struct):
    """What is needed of an event that brings a piece."""

    delta: str


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


def value_of(members: Mapping[str, Raw], name: str) -> object:
    """Return the decoded member `name`, ``None`` if it is missing."""
    value: object = decode_json(bytes(members.get(name, NULL)))
    return value


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
        delta = bytes(decode_members(event).get("delta", NULL))
    except ValueError:
        return b""
    return delta[1:-1] if delta.startswith(b'"') else b""
