"""Merging of JSON that arrives in pieces.

`merge_delta` merges the deltas of a stream: strings concatenate, and entries of arrays find their place.
`overlay` merges objects that are sent again in full: the later value wins. The tree under construction holds
accumulators in place of long strings and of arrays; `settled` returns it as plain JSON values.
"""

from __future__ import annotations

from io import StringIO
from typing import Any, TypeAlias

from stream_proxy.lenient_json import is_integer

Object = dict[str, Any]
_Identity: TypeAlias = str | int | float | None

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
# Arrays of parts that may also be sent as plain text.
TEXT_OR_PARTS = frozenset({"content"})

_SCALARS = (str, int, float)
_TEXTS = (str, StringIO)


def merge_delta(target: Object, delta: Object) -> None:
    """Merge one delta object into `target`, which then belongs to this module until it is `settled`.

    ``null`` and an empty string are kept only where the key is new. For other values (scalars are text,
    numbers and booleans; a missing, null or empty member counts as nothing):

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
            if isinstance(member, _Array):
                member.add(value, key)
            else:
                merge_delta(member, value)
        elif isinstance(value, list):
            array = _place_for_array(target, key)
            for entry in value:
                array.add(entry, key)
        elif not value and (value is None or value == ""):
            target.setdefault(key, value)
        else:
            _merge_scalar(target, key, value)


def lengthens(target: Object, delta: Object) -> bool:
    """Report whether merging `delta`, which holds one text, would only append it to a text in `target`."""
    for key, value in delta.items():
        old = target.get(key)
        if isinstance(value, str):
            return isinstance(old, _TEXTS)
        if isinstance(value, dict):
            return isinstance(old, dict) and lengthens(old, value)
        if isinstance(value, list):
            entry = old.entry(value[0].get("index")) if isinstance(old, _Array) else None
            return entry is not None and lengthens(entry, value[0])
    return False


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


def settled(value: Any) -> Any:
    """Return `value` as plain JSON values; the tree itself is not changed and can go on growing."""
    if isinstance(value, dict):
        return {key: settled(member) for key, member in value.items()}
    if isinstance(value, StringIO):
        return value.getvalue()
    if isinstance(value, _Array):
        return value.settled()
    return value


def _place_for_object(target: Object, key: str) -> Object | _Array:
    """Return the object or the array under `key`; put an empty object there if it is neither."""
    old = target.get(key)
    if not isinstance(old, dict | _Array):
        old = target[key] = {}
    return old


def _place_for_array(target: Object, key: str) -> _Array:
    """Return the array under `key`; replace what else is there by one."""
    old = target.get(key)
    if isinstance(old, _Array):
        return old
    array = target[key] = _Array()
    text = old.getvalue() if isinstance(old, StringIO) else old
    if key in TEXT_OR_PARTS and text and isinstance(text, str):
        array.add({"type": "text", "text": text}, key)
    return array


def _merge_scalar(target: Object, key: str, value: object) -> None:
    """Merge a text that is not empty, a number or a boolean into the member under `key`."""
    old = target.get(key)
    if not old and (old is None or old == ""):
        target[key] = value
    elif key in IDENTITIES:
        return
    elif isinstance(old, StringIO) and isinstance(value, str):
        if key not in REPEATABLE or old.tell() != len(value) or old.getvalue() != value:
            old.write(value)
    elif isinstance(old, _Array):
        if key in TEXT_OR_PARTS and isinstance(value, str):
            old.add({"type": "text", "text": value}, key)
    elif isinstance(old, str) and isinstance(value, str) and key not in LAST_WINS:
        if key not in REPEATABLE or old != value:
            # Adding str to str copies the whole each time; a StringIO grows in place and is one object.
            target[key] = text = StringIO()
            text.write(old)
            text.write(value)
    elif not isinstance(old, dict):
        target[key] = value


class _Array:
    """An array under construction, which finds the entry that a further fragment belongs to.

    Entries are looked up by (index, id, type), any of which may be missing (``None``).
    """

    __slots__ = ("_entries", "_known", "_last")

    def __init__(self) -> None:
        self._entries: list[Any] = []
        self._known: dict[tuple[_Identity, _Identity, _Identity], Object] = {}
        self._last: Object | None = None  # the object that the last fragment went to

    def add(self, fragment: object, key: str) -> None:
        """Merge `fragment`, an entry of the array under `key`; append it if it is not an object."""
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

    def entry(self, index: object) -> Object | None:
        """Return the entry that a fragment with this index, and without an id, belongs to."""
        return self._look_up(_identity(index), None, None)

    def settled(self) -> list[object]:
        """Return the entries as plain JSON values, sorted if every one has an index."""
        entries = self._entries
        if self._known and all(isinstance(e, dict) and is_integer(e.get("index")) for e in entries):
            entries = sorted(entries, key=lambda entry: entry["index"])
        return [settled(entry) for entry in entries]

    def _ends_with_type(self, type: _Identity) -> bool:
        last = self._last
        return last is not None and last is self._entries[-1] and _identity(last.get("type")) == type

    def _find(self, fragment: Object, index: _Identity, id: _Identity, type: _Identity) -> Object | None:
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

    def _look_up(self, index: _Identity, id: _Identity, type: _Identity) -> Object | None:
        entry = self._known.get((index, id, type))
        if entry is None and type is not None:
            entry = self._known.get((index, id, None))
            if entry is not None and _identity(entry.get("type")) is not None:
                return None  # the same place, but another type
        return entry

    def _remember(self, entry: Object, index: _Identity, id: _Identity, type: _Identity) -> None:
        known = self._known
        places: list[tuple[_Identity, _Identity]] = [(index, None)] if index is not None else []
        if id is not None:
            places += [(index, id), (None, id)]
        for at, name in places:
            known[at, name, None] = entry
            if type is not None:
                known[at, name, type] = entry


def _identity(value: object) -> _Identity:
    """Return `value` if it can identify an entry: a scalar that is neither empty nor a boolean."""
    return value if isinstance(value, _SCALARS) and value != "" and not isinstance(value, bool) else None


def _is_named(fragment: Object) -> bool:
    """Report whether the fragment has a name of its own, as ``{"function": {"name": …}}`` has."""
    return bool(fragment.get("name")) or any(
        isinstance(member, dict) and member.get("name") for member in fragment.values()
    )
