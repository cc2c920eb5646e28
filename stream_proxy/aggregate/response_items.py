"""Output items of a Responses stream: those that it finished, and those that only their pieces tell.

The terminal event repeats all items. Some back ends leave them out of it, ChatGPT's with ``store: false``
among them, and some of these never send ``response.output_item.done`` either.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import TypeVar

from msgspec import Raw

from stream_proxy.aggregate.response_texts import (
    ADDED,
    DONE,
    NO_ID,
    NULL,
    OUTPUT_TEXT,
    PARTS,
    STRINGS,
    TYPES,
    Text,
    TextRun,
    id_in,
    index_in,
    item_in,
    members_of,
    number_in,
    run_of,
    value_of,
)
from stream_proxy.json_steps import Steps, costing
from stream_proxy.lenient_json import decode_members, encode_json

# Items that are nothing without their content.
_HOLLOW = frozenset(TYPES.values()) - {"reasoning"}
_EMPTY = re.compile(rb'null|""|\[\s*\]')
_NOWHERE = b"null"  # no output_index
# Costs of putting an item, and a text, together: see `EventAccumulator.steps`.
_ITEM_COST, _TEXT_COST = 16, 16
# What a text counts for besides its characters: about the JSON around it.
_TEXT_BYTES = 64

_Members = Mapping[str, Raw]
_Key = TypeVar("_Key")


_Parts = dict[tuple[str, bytes], Text]  # by the stem of their events, and their index as JSON


class _Item:
    """One output item."""

    __slots__ = ("body", "ended", "final", "index", "parts", "strings", "type")

    def __init__(self, index: int, body: bytes, type: str | None) -> None:
        self.index = index
        self.body = body  # as it ended, else as it began
        self.type = type
        self.ended = False
        self.final = False  # pieces change nothing any more
        self.strings: dict[str, Text] = {}
        self.parts: _Parts = {}

    def size(self) -> int:
        """Return how many bytes are held for it."""
        texts = (*self.strings.values(), *self.parts.values())
        return len(self.body) + sum(len(text.value) + _TEXT_BYTES for text in texts)

    def end(self, body: bytes, *, hollow: bool) -> None:
        """Replace it by what it became; some back ends leave out what they have sent in pieces."""
        self.body, self.ended, self.final = body, True, not hollow
        if self.final:
            self.strings.clear()
            self.parts.clear()

    def whole(self, status: str) -> Steps[Raw | dict[str, object] | None]:
        """Return it in steps, ``None`` if nothing came of it; `status` is for one that did not end."""
        pieces = self.strings or self.parts
        if self.ended and not pieces:
            return Raw(self.body)
        began = yield from members_of(self.body)
        if not pieces and _is_hollow(self.type, began):
            return None
        members: dict[str, object] = {**began}
        for name, text in self.strings.items():
            members[name] = text.json()
        for name in ("content", "summary"):
            parts = _whole_parts(self.parts, name)
            if parts:
                members[name] = parts
        if "status" in members and not self.ended:
            members["status"] = status
        return members


class ResponseItems:
    """Output items of one stream, in the order of their indices; in order of arrival where these repeat."""

    def __init__(self) -> None:
        #: The bytes that are held.
        self.held = 0
        self._texts = 0
        self._items: list[_Item] = []
        self._by_id: dict[bytes, _Item] = {}  # by their ids as JSON
        self._last_at: dict[bytes, _Item] = {}  # the last one with an output_index, by that as JSON
        self._last_of: dict[str | None, _Item] = {}  # the last one of each type
        self._loose: dict[bytes, _Parts] = {}  # parts of messages that are no items, by output_index
        self._loose_id: object = None
        self._run: TextRun | None = None

    @property
    def count(self) -> int:
        """The number of items and of messages that are none yet, or that of texts if it is higher."""
        return max(len(self._items) + len(self._loose), self._texts)

    def take(self, kind: str, events: list[bytes]) -> None:
        """Add events of one kind, one of the `ITEM_EVENTS`, given the data of each, which should be JSON."""
        for at, data in enumerate(events):
            run = self._run if self._run is not None and self._run.kind == kind else None
            if run is not None and at < 2 and run.has(events[at:]):
                self.held += run.text.add_deltas(events[at:])
                return
            if run is not None and run.has([data]):
                self.held += run.text.add_deltas([data])
                continue
            try:
                self.add(kind, decode_members(data), data)
            except ValueError:
                continue

    def add(self, kind: str, members: _Members, data: bytes) -> None:
        """Add one of the `ITEM_EVENTS`: its members, and the JSON that they are from."""
        self._run = None
        if kind in (ADDED, DONE):
            body = item_in(members)
            if body:
                self._add_item(members, decode_members(body), ended=kind == DONE)
            return
        stem, _, end = kind.rpartition(".")
        text = self._add_piece(stem, members, whole=end == "done")
        if text is not None and not text.whole:
            self._run = run_of(kind, members, data, text)

    def add_long(self, kind: str, members: _Members, data: bytes) -> Steps[None]:
        """Add an event as `take` does, in steps, given its members."""
        run = self._run if self._run is not None and self._run.kind == kind else None
        if run is not None and run.has([data]):
            yield
            self.held += yield from run.text.add_long_delta(members, data)
        elif kind in (ADDED, DONE) and item_in(members):
            self._run = None
            yield
            fields = yield from members_of(item_in(members))
            self._add_item(members, fields, ended=kind == DONE)
        else:
            yield
            self.add(kind, members, data)

    def output(self, response_id: object, *, complete: bool) -> Generator[int, None, list[object]]:
        """Return the items, for a `PieceEncoder`; yield after each step what it cost.

        :param response_id: the Response's, from which a message that has no id gets one.
        :param complete: whether the Response is; if not, nor are items that the stream did not finish.
        """
        status = "completed" if complete else "incomplete"
        found: list[tuple[int, object]] = []
        for item in self._items:
            whole = yield from costing(item.whole(status))
            if whole is not None:
                found.append((item.index, whole))
            yield _ITEM_COST + _TEXT_COST * (len(item.strings) + len(item.parts))
        message = self._message(response_id, status)
        if message is not None:
            found.append(message)
        return [whole for _, whole in sorted(found, key=lambda each: each[0])]

    def _add_item(self, members: _Members, fields: _Members, *, ended: bool) -> None:
        body = item_in(members)
        id, own_type = id_in(fields.get("id")), value_of(fields, "type")
        type = own_type if isinstance(own_type, str) else None
        place = bytes(members.get("output_index", NULL))
        item = self._by_id.get(id)
        index = index_in(members, len(self._items) if item is None else item.index)
        if item is not None and item.ended and item.index != index:
            item = None  # an id that several items share
        if item is None and ended:
            # Copilot's ids differ from event to event.
            before = self._last_at.get(place)
            if before is not None and (before.body == body or (not before.ended and before.type == type)):
                item = before
        if item is None:
            item = _Item(index, body, type)
            self._items.append(item)
            self._last_at[place] = self._last_of[type] = item
            self.held += len(body)
            if type in (None, "message"):  # its texts may have come before it
                item.parts = self._loose.pop(_NOWHERE, {}) | self._loose.pop(place, {})
        if ended:
            size = item.size()
            item.end(body, hollow=_is_hollow(type, fields))
            self.held += item.size() - size
        if id != NO_ID:
            self._by_id[id] = item

    def _add_piece(self, stem: str, members: _Members, *, whole: bool) -> Text | None:
        """Add a piece of a text, or the whole of it, and return the text; ``None`` if it is not needed."""
        part = PARTS.get(stem)
        name = STRINGS[stem] if part is None else part[3]
        value = bytes(members.get(name if whole else "delta", NULL))
        item = self._item_of(stem, members)
        if not value.startswith(b'"') or (item is not None and item.final):
            return None
        if part is None:
            if item is None:
                return None
            text = self._text(item.strings, name)
        else:
            if item is not None:
                parts = item.parts
            elif part[0] == "message":
                parts = self._loose.setdefault(bytes(members.get("output_index", NULL)), {})
                self._loose_id = self._loose_id or value_of(members, "item_id")
            else:
                return None
            place = bytes(members.get("summary_index" if part[1] == "summary" else "content_index", NULL))
            text = self._text(parts, (stem, place))
            logprobs = bytes(members.get("logprobs", NULL))
            if whole and logprobs.startswith(b"["):
                self.held += len(logprobs) - len(text.logprobs)
                text.logprobs = logprobs
        self.held += text.add(value[1:-1], whole=whole)
        return text

    def _text(self, texts: dict[_Key, Text], key: _Key) -> Text:
        text = texts.get(key)
        if text is None:
            text = texts[key] = Text()
            self._texts += 1
            self.held += _TEXT_BYTES
        return text

    def _item_of(self, stem: str, members: _Members) -> _Item | None:
        """Return the item that an event is about: by id, else by index if it is an item of that kind.

        An event that has neither is about the last item of that kind.
        """
        id = id_in(members.get("item_id"))
        item = self._by_id.get(id)
        if item is not None:
            return item
        place = bytes(members.get("output_index", NULL))
        item = self._last_at.get(place)
        if item is None and id == NO_ID and place == _NOWHERE:
            return self._last_of.get(TYPES[stem]) or self._last_of.get(None)
        return item if item is None or item.type in (None, TYPES[stem]) else None

    def _message(self, response_id: object, status: str) -> tuple[int, object] | None:
        """Return the one assistant message that texts without an item make, after its index."""
        if not self._loose:
            return None
        loose = [(number_in(place, 0), parts) for place, parts in self._loose.items()]
        loose.sort(key=lambda each: each[0])
        id = self._loose_id
        if not isinstance(id, str) or not id:
            id = "msg_" + str(response_id or "").removeprefix("resp_")
        content = [part for _, parts in loose for part in _whole_parts(parts, "content")]
        encoded = Raw(encode_json(id))
        fields = {"id": encoded, "type": "message", "status": status, "role": "assistant", "content": content}
        return loose[0][0], fields


def _whole_parts(parts: _Parts, name: str) -> list[object]:
    """Return the parts that belong into an item's member `name`, by index."""
    found: list[object] = []
    for (stem, _), text in sorted(parts.items(), key=lambda each: number_in(each[0][1], 0)):
        _, member, type, key = PARTS[stem]
        if member == name:
            fields: dict[str, object] = {"type": type}
            if stem == OUTPUT_TEXT:
                fields |= {"annotations": [], "logprobs": Raw(text.logprobs)}
            found.append({**fields, key: text.json()})
    return found


def _is_hollow(type: str | None, members: _Members) -> bool:
    """Report whether an item is one that is nothing without its content, and has none."""
    names = ("content", *STRINGS.values())
    return type in _HOLLOW and all(_EMPTY.fullmatch(members.get(name, NULL)) for name in names)
