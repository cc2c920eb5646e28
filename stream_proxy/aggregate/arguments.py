"""Arguments of tool calls, which are judged as JSON.

A complete object is never continued. What comes after one is the same call said again: some servers send the
whole once more (vLLM's xlam parser, also after a beginning of it), or with each fragment all that came before
it (DeepSeek behind Baidu Qianfan), or ``{}`` first (gateways to Claude, whose ``input`` begins empty).
"""

from __future__ import annotations

import json
import re
from itertools import dropwhile

import msgspec

from stream_proxy.lenient_json import decode_json, decode_members

_SYNTAX = re.compile(r'["{}]')
_STRING_CONTENTS = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
_EMPTY_OBJECT = re.compile(r"\s*\{\s*\}\s*")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_any_value = msgspec.json.Decoder(msgspec.Raw).decode
_first_value = json.JSONDecoder().raw_decode


class Arguments:
    """Arguments under construction.

    All fragments are kept, as only the end tells what they were meant to be.
    """

    __slots__ = ("_broken", "_current", "_fragments", "_nesting", "_scanned", "_wholes")

    def __init__(self) -> None:
        self._fragments: list[str] = []
        self._scanned = 0  # how many fragments the following members know of
        self._nesting = _Nesting()
        self._wholes: list[str] = []  # the complete objects
        self._current: list[str] = []  # the fragments since the last of them
        self._broken = False  # whether all braces were closed and it was no JSON

    def write(self, fragment: str) -> None:
        """Add a fragment."""
        self._fragments.append(fragment)

    def extend(self, fragments: list[str]) -> None:
        """Add fragments."""
        self._fragments += fragments

    def getvalue(self) -> str:
        """Return the fragments, joined."""
        return "".join(self._fragments)

    def read(self) -> str:
        """Return the first reading of the fragments that is JSON, or else the fragments, joined."""
        joined = self.getvalue()
        if _is_json(joined):
            return joined
        for reading in (self._cumulative(), _repeated(joined), _without_empty_object(joined), self._folded()):
            if reading is not None:
                return reading
        return joined

    @property
    def complete(self) -> bool:
        """Whether the last thing that came is a complete object."""
        self._scan()
        return bool(self._wholes) and not self._current and not self._broken

    def are_said_again(self, text: str) -> bool:
        """Report whether `text` repeats or extends these arguments, which are complete."""
        return is_object(text) and _later(self._wholes[-1], text) is not None

    def _scan(self) -> None:
        """Sort the fragments that came since the last scan; together the scans take linear time."""
        new = self._fragments[self._scanned :]
        self._scanned = len(self._fragments)
        for fragment in new:
            if self._broken:
                return
            blank = not fragment or fragment.isspace()
            if not self._current and (blank or (self._wholes and not opens_object(fragment))):
                continue  # nothing continues a complete object
            self._current.append(fragment)
            self._nesting.add(fragment)
            if self._nesting.closed and fragment.rstrip().endswith("}"):
                text = "".join(self._current)
                self._broken = not is_object(text)
                self._wholes.append(text)
                self._current = []
                self._nesting = _Nesting()

    def _cumulative(self) -> str | None:
        """Return what the fragments make if those that hold all before them replace it, if that is JSON."""
        parts: list[str] = []
        length = 0
        for fragment in dropwhile(_is_nothing, self._fragments):
            # As only a fragment of that length is compared with the whole, this takes linear time.
            if len(fragment) >= length and fragment.startswith("".join(parts)):
                parts, length = [fragment], len(fragment)
            else:
                parts.append(fragment)
                length += len(fragment)
        whole = "".join(parts)
        return whole if _is_json(whole) else None

    def _folded(self) -> str | None:
        """Return what the complete objects amount to, if each repeats or extends the one before."""
        self._scan()
        if self._broken or not self._wholes:
            return None
        whole = self._wholes[0]
        for further in self._wholes[1:]:
            later = _later(whole, further)
            if later is None:
                return None
            whole = later
        rest = "".join(self._current).strip()
        if _EMPTY_OBJECT.fullmatch(whole):
            return rest or whole
        return whole if whole.lstrip().startswith(rest) else None


class _Nesting:
    """The depth of braces at the end of a JSON text that comes in fragments."""

    __slots__ = ("_depth", "_escaped", "_in_string")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False  # a fragment ended between a backslash and the character after it

    @property
    def closed(self) -> bool:
        """Whether each brace that was opened is closed again."""
        return self._depth == 0 and not self._in_string

    def add(self, text: str) -> None:
        """Read on through `text`."""
        at = 1 if self._escaped and text else 0
        self._escaped = self._escaped and not text
        while at < len(text):
            if self._in_string:
                contents = _STRING_CONTENTS.match(text, at)
                at = at if contents is None else contents.end()
                if text[at : at + 1] == "\\":
                    self._escaped = True
                elif at < len(text):
                    self._in_string = False
                at += 1
                continue
            found = _SYNTAX.search(text, at)
            if found is None:
                return
            at = found.end()
            if found[0] == '"':
                self._in_string = True
            else:
                self._depth += 1 if found[0] == "{" else -1


def opens_object(text: str) -> bool:
    """Report whether `text` begins with a brace."""
    return text.lstrip().startswith("{")


def is_object(text: str) -> bool:
    """Report whether `text` is a JSON object, as `json` takes it."""
    try:
        _members(text)
        return True
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        pass
    try:
        decode_members(text.encode("utf-8", "surrogatepass"))
        return True
    except (ValueError, RecursionError):
        return False


def _is_nothing(fragment: str) -> bool:
    return not fragment.strip() or _EMPTY_OBJECT.fullmatch(fragment) is not None


def _is_json(text: str) -> bool:
    try:
        _any_value(text)
        return True
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return is_object(text)


def _repeated(joined: str) -> str | None:
    """Return the object that `joined` holds more than once, and nothing else."""
    text = joined.strip()
    if not text.startswith("{"):
        return None
    try:
        _, end = _first_value(text)
    except (ValueError, RecursionError):
        return None
    return None if text.replace(text[:end], "").strip() else text[:end]


def _without_empty_object(joined: str) -> str | None:
    """Return the object that follows ``{}``."""
    empty = _EMPTY_OBJECT.match(joined)
    rest = "" if empty is None else joined[empty.end() :]
    return rest if is_object(rest) else None


def _later(earlier: str, later: str) -> str | None:
    """Return which of two complete objects counts, or ``None`` if they contradict each other."""
    if earlier.strip() == later.strip() or _EMPTY_OBJECT.fullmatch(later):
        return earlier
    if _EMPTY_OBJECT.fullmatch(earlier):
        return later
    return later if _extends(_decoded(earlier), _decoded(later)) else None


def _decoded(text: str) -> object:
    return decode_json(text.encode("utf-8", "surrogatepass"))


def _extends(earlier: object, later: object) -> bool:
    """Report whether `later` is `earlier` grown on, as when each snapshot of a growing object is closed."""
    if isinstance(earlier, dict) and isinstance(later, dict):
        return all(key in later and _extends(value, later[key]) for key, value in earlier.items())
    if isinstance(earlier, list) and isinstance(later, list):
        return len(earlier) <= len(later) and all(map(_extends, earlier, later))
    if isinstance(earlier, str) and isinstance(later, str):
        return later.startswith(earlier)
    return earlier is None or earlier == later
