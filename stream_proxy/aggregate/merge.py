"""JSON that comes in pieces, merged.

`merge_delta` puts the deltas of a stream together: strings concatenate, entries of arrays find their place;
`overlay` is for objects that are resent, where the later value wins. A tree under construction holds
accumulators in place of long strings and of arrays; `settled` turns it into plain JSON values.
"""

from __future__ import annotations

from io import StringIO
from typing import Any

from stream_proxy.lenient_json import is_integer

Object = dict[str, Any]

# Set once, by the first value that is not empty.
IDENTITIES = frozenset({"role", "id", "type", "index", "object", "model", "format", "signature"})
# A later value that is not empty replaces the earlier one.
LAST_WINS = frozenset({"status"})
# Sent whole, sometimes more than once: a fragment equal to the whole so far is a repeat.
REPEATABLE = frozenset({"name"})
# Where an array entry with neither index nor id belongs: to the last entry, to the last entry if that has the
# same type (`thinking` is the array of text parts inside a thinking part of `content`), else it is a new one.
CONTINUES_LAST = frozenset({"tool_calls"})
CONTINUES_SAME_TYPE = frozenset({"content", "thinking"})
# Arrays of parts that may also come as plain text.
TEXT_OR_PARTS = frozenset({"content"})

_SCALARS = (str, int, float)


def merge_delta(target: Object, delta: Object) -> None:
    """Merge one delta object into `target`, which then belongs to this module until it is `settled`.

    ``null`` never erases and an empty string changes nothing. Where kinds of values clash, a structure beats
    a scalar and else the later value wins.

    :raises RecursionError: the objects are nested too deep.
    """
    for key, value in delta.items():
        old = target.get(key)
        if isinstance(value, str):
            if not value:
                target.setdefault(key, value)
            elif old is None or old == "":
                target[key] = value
            elif isinstance(old, str | StringIO):
                _add_text(target, key, old, value)
            elif key in TEXT_OR_PARTS and isinstance(old, _Array):
                old.add({"type": "text", "text": value}, key)
            elif not isinstance(old, dict | _Array) and key not in IDENTITIES:
                target[key] = value
        elif value is None:
            target.setdefault(key, None)
        elif isinstance(value, dict):
            if isinstance(old, _Array):
                old.add(value, key)
            else:
                if not isinstance(old, dict):
                    old = target[key] = {}
                merge_delta(old, value)
        elif isinstance(value, list):
            if not isinstance(old, _Array):
                text = old.getvalue() if isinstance(old, StringIO) else old
                old = target[key] = _Array()
                if text and isinstance(text, str) and key in TEXT_OR_PARTS:
                    old.add({"type": "text", "text": text}, key)
            for entry in value:
                old.add(entry, key)
        elif old is None or old == "" or not (key in IDENTITIES or isinstance(old, dict | _Array)):
            target[key] = value


def lengthens(target: Object, delta: Object) -> bool:
    """Whether `delta`, which holds one text, would only be appended to a text that `target` has there."""
    for key, value in delta.items():
        old = target.get(key)
        if isinstance(value, str):
            return isinstance(old, str | StringIO)
        if isinstance(value, dict):
            return isinstance(old, dict) and lengthens(old, value)
        if isinstance(value, list):
            entry = old.entry(value[0].get("index")) if isinstance(old, _Array) else None
            return entry is not None and lengthens(entry, value[0])
    return False


def overlay(target: Object, newer: Object) -> None:
    """Lay `newer` over `target`: objects merge, else the last value that is not ``null`` counts."""
    for key, value in newer.items():
        if value is None:
            target.setdefault(key, None)
            continue
        old = target.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            overlay(old, value)
        else:
            target[key] = value


def settled(value: Any) -> Any:
    """`value` as plain JSON values; the tree itself stays as it is and can go on growing."""
    if isinstance(value, dict):
        return {key: settled(member) for key, member in value.items()}
    if isinstance(value, StringIO):
        return value.getvalue()
    if isinstance(value, _Array):
        return value.settled()
    return value


def _add_text(target: Object, key: str, old: str | StringIO, value: str) -> None:
    if key in IDENTITIES:
        return
    if key in LAST_WINS:
        target[key] = value
        return
    if isinstance(old, str):
        if key in REPEATABLE and value == old:
            return
        # Adding str to str copies the whole each time; a StringIO grows in place and is one object.
        target[key] = text = StringIO()
        text.write(old)
        text.write(value)
    elif not (key in REPEATABLE and old.tell() == len(value) and old.getvalue() == value):
        old.write(value)


class _Array:
    """An array under construction, which knows which entry a further fragment belongs to.

    Entries are looked up by (index, id, type), any of which may be missing (``None``).
    """

    __slots__ = ("_entries", "_known", "_last")

    def __init__(self) -> None:
        self._entries: list[Any] = []
        self._known: dict[tuple[Any, Any, Any], Object] = {}
        self._last: Object | None = None  # the object that the last fragment went to

    def add(self, fragment: Any, key: str) -> None:
        """Merge `fragment`, an entry of the array under `key`; what is no object is appended."""
        if not isinstance(fragment, dict):
            self._entries.append(fragment)
            return
        index, id = _identity(fragment.get("index")), _identity(fragment.get("id"))
        type = _identity(fragment.get("type"))
        if index is not None or id is not None:
            entry = self._find(fragment, index, id, type)
        elif key in CONTINUES_LAST or (key in CONTINUES_SAME_TYPE and self._ends_with_type(type)):
            entry = self._last
        else:
            entry = None
        if entry is None:
            entry = {}
            self._entries.append(entry)
        merge_delta(entry, fragment)
        self._last = entry
        if index is not None or id is not None:
            self._remember(entry, index, _identity(entry.get("id")), _identity(entry.get("type")))

    def entry(self, index: Any) -> Object | None:
        """The entry that a fragment with this index, and without an id, belongs to."""
        return self._look_up(_identity(index), None, None)

    def settled(self) -> list[Any]:
        entries = self._entries
        if self._known and all(isinstance(e, dict) and is_integer(e.get("index")) for e in entries):
            entries = sorted(entries, key=lambda entry: entry["index"])
        return [settled(entry) for entry in entries]

    def _ends_with_type(self, type: Any) -> bool:
        last = self._last
        return last is not None and last is self._entries[-1] and _identity(last.get("type")) == type

    def _find(self, fragment: Object, index: Any, id: Any, type: Any) -> Object | None:
        if id is not None:
            entry = self._look_up(index, id, type)
            if entry is not None or index is None:
                return entry
        entry = self._look_up(index, None, type)
        if entry is None or id is None:
            return entry
        # Every parallel call of Gemini and Groq has index 0, but other servers send a fresh id with every
        # fragment: only an id that comes with a name opens another entry.
        known_id = _identity(entry.get("id"))
        return None if known_id is not None and known_id != id and _is_named(fragment) else entry

    def _look_up(self, index: Any, id: Any, type: Any) -> Object | None:
        entry = self._known.get((index, id, type))
        if entry is None and type is not None:
            entry = self._known.get((index, id, None))
            if entry is not None and _identity(entry.get("type")) is not None:
                return None  # the same place, but another type
        return entry

    def _remember(self, entry: Object, index: Any, id: Any, type: Any) -> None:
        known = self._known
        places = [(index, None)] if index is not None else []
        if id is not None:
            places += [(index, id), (None, id)]
        for at, name in places:
            known[at, name, None] = entry
            if type is not None:
                known[at, name, type] = entry


def _identity(value: Any) -> Any:
    """`value` if it can tell entries apart: a scalar that is neither empty nor a boolean, else ``None``."""
    return value if isinstance(value, _SCALARS) and value != "" and not isinstance(value, bool) else None


def _is_named(fragment: Object) -> bool:
    """Whether the fragment has a name of its own, as ``{"function": {"name": …}}`` has."""
    return bool(fragment.get("name")) or any(
        isinstance(member, dict) and member.get("name") for member in fragment.values()
    )
