"""Merging of JSON that arrives in pieces.

`merge_delta` merges the deltas of a stream: strings concatenate, and entries of arrays find their place.
`overlay` merges objects that are sent again in full: the later value wins. The tree under construction holds
accumulators in place of texts and of arrays; `settled` returns it as JSON values, but for long texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stream_proxy.aggregate.arguments import Arguments
from stream_proxy.aggregate.arrays import Details, Entries, Parts, holds
from stream_proxy.aggregate.arrays import Object as Object
from stream_proxy.aggregate.long_text import LongText, repeated_blocks
from stream_proxy.aggregate.reading.argument_reader import ArgumentReader, Outline
from stream_proxy.aggregate.tool_calls import ToolCalls

# Set once, by the first value that is not empty.
IDENTITIES = frozenset({"role", "id", "type", "index", "object", "model", "format", "signature"})
# A later value that is not empty replaces the earlier one.
LAST_WINS = frozenset({"status"})
# Sent whole, sometimes more than once: a fragment equal to the whole so far is a repeat.
REPEATABLE = frozenset({"name"})
# Arrays of parts that may also be sent as plain text.
TEXT_OR_PARTS = frozenset({"content"})
# Texts that a model writes, and data: two equal fragments of one are "ha" and "ha", never a repeat.
KNOWN_TEXTS = frozenset(
    {
        "content",
        "data",
        "input",
        "name",
        "partial_json",
        "reasoning",
        "reasoning_content",
        "reasoning_text",
        "refusal",
        "summary",
        "text",
        "thinking",
        "thought",
        "transcript",
    }
)
# `thinking` is the array of text parts inside a thinking part of `content` (Mistral).
_ARRAYS: dict[str, type[Entries]] = {
    "content": Parts,
    "reasoning_details": Details,
    "summary": Parts,
    "thinking": Parts,
    "thinking_blocks": Parts,
    "tool_calls": ToolCalls,
}
_ARGUMENTS = "arguments"
#: Texts with more characters are not joined: that takes as long as a turn of the reactor may.
LONG = 2**18


class VendorText:
    """A string of unknown meaning: a label if every fragment is the same (Groq's ``channel``), else a text.

    :param first: the first fragment.
    """

    __slots__ = ("_first", "_repeats", "_text")

    def __init__(self, first: str) -> None:
        self._first = first
        self._repeats = 1
        self._text: LongText | None = None

    def write(self, fragment: str) -> None:
        """Add a fragment."""
        if self._text is None:
            if fragment == self._first:
                self._repeats += 1
                return
            self._text = LongText(repeated_blocks(self._first, self._repeats))
        self._text.write(fragment)

    def value(self) -> str | LongText:
        """Return the whole."""
        return self._first if self._text is None else self._text


_GROWING = (LongText, VendorText, Arguments)


def merge_delta(target: Object, delta: Object) -> None:
    """Merge one delta object into `target`, which then belongs to this module until it is `settled`.

    ``null`` is kept only where the key is new, and an empty string there or in place of ``null``. For other
    values (scalars are text, numbers and booleans; a missing, null or empty member counts as nothing):

    ===========  ===========  =================  ==============  ===============
    new \\ old    nothing      scalar             object          array
    ===========  ===========  =================  ==============  ===============
    scalar       is set       replaces it [1]_   is ignored      is ignored [2]_
    object       is set       replaces it        merges into it  becomes an entry
    array        is set       replaces it [2]_   replaces it     extends it
    ===========  ===========  =================  ==============  ===============

    .. [1] Text is appended to text. Both depend on the key: see `IDENTITIES`, `LAST_WINS` and `REPEATABLE`.
    .. [2] Under a key of `TEXT_OR_PARTS` the text is kept, as an entry ``{"type": "text", "text": …}``.

    :raises RecursionError: the objects are nested too deep.
    """
    # The helpers return before the recursion: a frame less for each level doubles the depth that is possible.
    for key, value in delta.items():
        if isinstance(value, dict):
            member = _place_for_object(target, key)
            merge_delta(member.place(value) if isinstance(member, Entries) else member, value)
        elif isinstance(value, list):
            array = _place_for_array(target, key)
            for position, entry in enumerate(value):
                if isinstance(entry, dict):
                    merge_delta(array.place(entry, position, len(value)), entry)
                else:
                    array.append(entry)
        elif not value and (value is None or value == ""):
            if target.get(key) is None:
                target[key] = value
        else:
            _merge_scalar(target, key, value)


def lengthens(target: Object, delta: Object) -> bool:
    """Report whether merging `delta`, one text, would only append it to a text in `target`."""
    return all(isinstance(target.get(key), (str, LongText)) for key in delta)


def overlay(target: Object, newer: Object) -> None:
    """Lay `newer` over `target`: objects merge, of other values the last one that is not ``null`` wins."""
    for key, value in newer.items():
        if value is None:
            target.setdefault(key, None)
            continue
        old = target.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            overlay(old, value)
        else:
            target[key] = value


def fill(target: Object, whole: Object) -> None:
    """Take from `whole` what `target`, the same object in part, does not have; both are plain JSON values."""
    for key, value in whole.items():
        old = target.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            fill(old, value)
        elif old in (None, "", []) and (value is not None or key not in target):
            target[key] = value


def settled(value: Any, reader: ArgumentReader | None = None) -> Any:
    """Return `value` as plain JSON values; the tree itself is not changed and can go on growing.

    Texts of more than `LONG` characters stay as they are: a `PieceEncoder` takes them.

    :param reader: reads arguments as what was meant; without one their fragments are just joined.
    """
    if isinstance(value, dict):
        return {key: settled(member, reader) for key, member in value.items()}
    if isinstance(value, Entries):
        if value.are_plain:  # there may be hundreds of thousands
            return list(value.entries)
        # Entries that are no objects came whole.
        return value.finish(
            [settled(entry, reader) if isinstance(entry, dict) else entry for entry in value.entries]
        )
    if isinstance(value, Arguments):
        return reader.read(value) if reader is not None else value.getvalue()
    if isinstance(value, VendorText):
        value = value.value()
    if isinstance(value, str | LongText) and isinstance(reader, Outline):
        return ""
    return value.getvalue() if isinstance(value, LongText) and value.size <= LONG else value


def arguments_in(value: object) -> Iterator[Arguments]:
    """Yield the arguments in a tree, in the order in which `settled` reads them."""
    if isinstance(value, Arguments):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            if isinstance(member, dict | Entries | Arguments):
                yield from arguments_in(member)
    elif isinstance(value, Entries):
        for entry in value.entries:
            if isinstance(entry, dict):
                yield from arguments_in(entry)


def _place_for_object(target: Object, key: str) -> Object | Entries:
    """Return the object or the array under `key`; put an empty object there if it is neither."""
    old = target.get(key)
    if not isinstance(old, dict | Entries):
        old = target[key] = {}
    return old


def _place_for_array(target: Object, key: str) -> Entries:
    """Return the array under `key`; replace what else is there by one."""
    old = target.get(key)
    if isinstance(old, Entries):
        return old
    array = target[key] = _ARRAYS.get(key, Entries)()
    if key in TEXT_OR_PARTS and old and isinstance(old, str | LongText):
        _add_text(array, old)
    return array


def _add_text(parts: Entries, text: str | LongText) -> None:
    part: Object = {"type": "text", "text": text}
    merge_delta(parts.place(part), part)  # a long text goes on growing there


def _merge_scalar(target: Object, key: str, value: object) -> None:
    """Merge a text that is not empty, a number or a boolean into the member under `key`."""
    old = target.get(key)
    if not old and (old is None or old == ""):
        target[key] = value
        if key == _ARGUMENTS and isinstance(value, str):
            target[key] = arguments = Arguments()
            arguments.write(value)
    elif key in IDENTITIES:
        return
    elif isinstance(old, _GROWING) and isinstance(value, str):
        if key not in REPEATABLE or not holds(old, value):
            old.write(value)
    elif isinstance(old, Entries):
        if key in TEXT_OR_PARTS and isinstance(value, str):
            _add_text(old, value)
    elif isinstance(old, str) and isinstance(value, str) and key not in LAST_WINS:
        _append(target, key, old, value)
    elif not isinstance(old, dict):
        target[key] = value


def _append(target: Object, key: str, old: str, value: str) -> None:
    """Append to a text that has come in one fragment so far."""
    if key in REPEATABLE and old == value:
        return
    text = target[key] = LongText() if key in KNOWN_TEXTS else VendorText(old)
    if isinstance(text, LongText):
        text.write(old)
    text.write(value)
