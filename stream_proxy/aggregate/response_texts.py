"""Texts of a Responses stream that come in pieces."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from stream_proxy.lenient_json import decode_members, encode_json

NULL = Raw(b"null")
# How many bytes of events are held before they are decoded: often the whole text comes first.
_UNDECODED_BYTES = 65_536


class _Delta(Struct):
    """What is needed of an event that brings a piece."""

    delta: str


_decode_deltas = msgspec.json.Decoder(list[_Delta]).decode


class Text:
    """A string that comes in pieces, and perhaps once more as a whole; it is held as JSON without quotes."""

    __slots__ = ("logprobs", "undecoded", "undecoded_bytes", "value", "whole")

    def __init__(self) -> None:
        self.value = bytearray()
        self.undecoded: list[bytes] = []  # the events of further pieces
        self.undecoded_bytes = 0
        self.whole = False
        self.logprobs = b"[]"

    def add(self, value: bytes, *, whole: bool) -> int:
        """Append a piece, or replace all of them with the whole; return how much longer the text became."""
        if self.whole and not whole:
            return 0
        before = len(self.value)
        if whole:
            self.value.clear()
            self.undecoded, self.undecoded_bytes = [], 0
            self.whole = True
        else:
            self.decode()
        self.value += value
        return len(self.value) - before

    def hold(self, event: bytes) -> int:
        """Append the piece of an event, whose JSON need not be decoded yet; return as `add` does."""
        self.undecoded.append(event)
        self.undecoded_bytes += len(event)
        return self.decode() if self.undecoded_bytes > _UNDECODED_BYTES else 0

    def decode(self) -> int:
        """Append the pieces that are held as events; return how much longer the text became."""
        events, before = self.undecoded, len(self.value)
        self.undecoded, self.undecoded_bytes = [], 0
        if events:
            try:
                deltas = _decode_deltas(b"[" + b",".join(events) + b"]")
            except (msgspec.MsgspecError, RecursionError):
                self.value += b"".join(map(_delta, events))
            else:
                self.value += encode_json("".join([each.delta for each in deltas]))[1:-1]
        return len(self.value) - before

    def json(self) -> Raw:
        """Return the string as JSON."""
        self.decode()
        return Raw(b'"' + self.value + b'"')


class TextRun:
    """A text that several events add to, one after the other, and how to tell these events without decoding.

    :param kind: their type.
    :param item: the member that tells which item they are about, as the first of them spelled it. Within a
        string a quotation mark is escaped, so that no text can hold such a member.
    :param part: the same for the part of the item; empty if it has no parts.
    """

    __slots__ = ("item", "kind", "part", "text")

    def __init__(self, kind: str, item: bytes, part: bytes, text: Text) -> None:
        self.kind = kind
        self.item = item
        self.part = part
        self.text = text


def run_of(kind: str, members: Mapping[str, Raw], data: bytes, text: Text) -> TextRun | None:
    """Return the run that an event begins, ``None`` if nothing in it tells which text it is about.

    :param members: the members of its JSON, which is `data`.
    """
    item = _mark(("item_id", "output_index"), members, data)
    part = _mark(("content_index", "summary_index"), members, data)
    return TextRun(kind, item, part, text) if item else None


def _mark(names: tuple[str, ...], members: Mapping[str, Raw], data: bytes) -> bytes:
    """Return the first of the members `names` as `data` spells it, empty if it has none of them."""
    for name in names:
        if name in members:
            spelled = rb'"%b"\s*:\s*%b\s*[,}]' % (name.encode(), re.escape(bytes(members[name])))
            found = re.search(spelled, data)
            return data if found is None else found[0]
    return b""


def _delta(event: bytes) -> bytes:
    try:
        delta = bytes(decode_members(event).get("delta", NULL))
    except ValueError:
        return b""
    return delta[1:-1] if delta.startswith(b'"') else b""
