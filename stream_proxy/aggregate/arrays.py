"""Arrays under construction, which find the entry that a further fragment belongs to."""

from __future__ import annotations

from typing import Any, TypeAlias

from stream_proxy.aggregate.long_text import LongText
from stream_proxy.lenient_json import is_integer

#: An object under construction: its members are JSON, or what grows into JSON.
Object: TypeAlias = dict[str, Any]
Identity: TypeAlias = str | int | float | None

_SCALARS = (str, int, float)
# Members that are sent whole: two parts with one are two parts, whatever their type.
_WHOLE = frozenset({"data", "file", "image", "image_url", "input_audio", "source", "url"})
# Integers beyond this are looked up as text: a dictionary can be made slow with chosen large ones.
_MOST_PLAIN = 2**31


class Entries:
    """An array under construction.

    A fragment with an index continues the entry with that index, and one with just an id the entry with that
    id; one with neither is an entry of its own.
    """

    __slots__ = ("_by_id", "_by_index", "_entries", "_last")

    def __init__(self) -> None:
        self._entries: list[object] = []
        self._by_index: dict[Identity, Object] = {}  # the latest entry with each index
        self._by_id: dict[Identity, Object] = {}
        self._last: Object | None = None  # the object that the last fragment went to

    @property
    def entries(self) -> list[object]:
        """The entries so far."""
        return self._entries

    @property
    def are_plain(self) -> bool:
        """Whether no entry is an object."""
        return self._last is None

    def append(self, value: object) -> None:
        """Append a value that is not an object."""
        self._entries.append(value)

    def place(self, fragment: Object, position: int = 0, count: int = 1) -> Object:
        """Return the entry that `fragment` is to be merged into, which may be a new one.

        :param position: the fragment's position in the array of its chunk.
        :param count: the length of that array.
        """
        index, id = identity(fragment.get("index")), identity(fragment.get("id"))
        if index is not None:
            entry = self._at_index(fragment, index, id)
        elif id is not None:
            entry = self._with_id(fragment, id)
        else:
            entry = self._unidentified(fragment, position, count)
        if entry is None:
            entry = {}
            self._entries.append(entry)
        if index is not None:
            self._by_index[index] = entry
        if id is not None:
            self._by_id[id] = entry
        self._last = entry
        return entry

    def finish(self, entries: list[object]) -> list[object]:
        """Return the entries, now plain JSON values, in the order and with the indexes of a whole answer."""
        indexes = [entry.get("index") for entry in entries if isinstance(entry, dict)]
        keys = [index for index in indexes if is_integer(index)]
        if len(keys) != len(entries):
            return entries
        return [entries[at] for at in sorted(range(len(keys)), key=keys.__getitem__)]

    def _at_index(self, fragment: Object, index: Identity, id: Identity) -> Object | None:
        entry = self._by_index.get(index)
        return None if entry is None or differ(entry, fragment, "type") else entry

    def _with_id(self, fragment: Object, id: Identity) -> Object | None:
        entry = self._by_id.get(id)
        return None if entry is None or differ(entry, fragment, "type") else entry

    def _unidentified(self, fragment: Object, position: int, count: int) -> Object | None:
        return None


class Parts(Entries):
    """An array of parts of a text, whose last part is continued until another type or its signature comes."""

    __slots__ = ()

    def _unidentified(self, fragment: Object, position: int, count: int) -> Object | None:
        last = self._last
        if last is None or last is not self._entries[-1] or identity(last.get("signature")) is not None:
            return None
        if identity(last.get("type")) != identity(fragment.get("type")):
            return None
        return last if _WHOLE.isdisjoint(fragment) else None


class Details(Entries):
    """An array of ``reasoning_details``.

    OpenRouter streams all of them with index 0, and counts them in whole answers: another type or another id
    is the next one. A signature ends the text that it signs, and only data under one id are joined.
    """

    __slots__ = ()

    def finish(self, entries: list[object]) -> list[object]:
        indexes = [identity(entry.get("index")) for entry in entries if isinstance(entry, dict)]
        if len(set(indexes)) == len(indexes):
            return super().finish(entries)
        for position, entry in enumerate(entries):
            if isinstance(entry, dict) and is_integer(entry.get("index")):
                entry["index"] = position
        return entries

    def _at_index(self, fragment: Object, index: Identity, id: Identity) -> Object | None:
        entry = super()._at_index(fragment, index, id)
        return None if entry is None or self._is_next(entry, fragment) else entry

    def _with_id(self, fragment: Object, id: Identity) -> Object | None:
        entry = super()._with_id(fragment, id)
        return None if entry is None or self._is_next(entry, fragment) else entry

    def _unidentified(self, fragment: Object, position: int, count: int) -> Object | None:
        last = self._last
        if last is None or last is not self._entries[-1] or fragment.get("data"):
            return None
        if identity(last.get("type")) != identity(fragment.get("type")) or self._is_next(last, fragment):
            return None
        return last

    @staticmethod
    def _is_next(entry: Object, fragment: Object) -> bool:
        if differ(entry, fragment, "id"):
            return True
        if entry.get("data") and fragment.get("data"):
            return entry.get("id") is None or entry.get("id") != fragment.get("id")
        signed = entry.get("signature")
        goes_on = any(fragment.get(key) for key in ("text", "summary", "data"))
        return bool(signed) and goes_on and signed != fragment.get("signature")


def identity(value: object) -> Identity:
    """Return by what `value` identifies an entry: any scalar but a boolean or an empty one, or ``None``."""
    if not isinstance(value, _SCALARS) or isinstance(value, bool) or value == "":
        return None
    if isinstance(value, str) or -_MOST_PLAIN < value < _MOST_PLAIN:
        return value
    # In hexadecimal: Python refuses to write integers of more than 4,300 digits in decimal.
    return f"{value:#x} as a number" if isinstance(value, int) else f"{value!r} as a number"


def differ(entry: Object, fragment: Object, key: str) -> bool:
    """Report whether an entry and a fragment both have an identity under `key`, and not the same."""
    one, other = identity(entry.get(key)), identity(fragment.get(key))
    return one is not None and other is not None and one != other


def holds(text: object, value: str) -> bool:
    """Report whether `text`, which may be under construction, is `value`."""
    if isinstance(text, LongText):  # a long one is not built for each of its fragments
        return text.size == len(value) and text.getvalue() == value
    return text == value
