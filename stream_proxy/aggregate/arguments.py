"""Arguments of tool calls, which are judged as JSON.

A complete object is never continued. What comes after one is the same call said again: some servers send the
whole once more (vLLM's xlam parser, also after a beginning of it), or with each fragment all that came before
it (DeepSeek behind Baidu Qianfan), or ``{}`` first (gateways to Claude, whose ``input`` begins empty).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from itertools import dropwhile

import msgspec

from stream_proxy.aggregate.long_text import beginning
from stream_proxy.lenient_json import decode_json

#: Characters of arguments that are no JSON and yet read, in all of a response: that takes up to 50 ns each.
MOST_READ = 1_048_576
# Bytes of fragments in JSON strings that are more than so many characters, however these are escaped.
_LONG_BYTES = 12 * MOST_READ
# Fragments, or complete objects, that are looked at in one step.
_STEP_FRAGMENTS = 8192
_STEP_OBJECTS = 512
# Bytes of fragments that are joined in one step.
_STEP_BYTES = 2**20
# So many fragments are sorted before anybody asks what they make: it takes long to sort all of them at once.
_UNSORTED_FRAGMENTS = 4 * _STEP_FRAGMENTS
# Characters that may be parsed to learn whether arguments are complete, besides twice as many as there are.
_SPARE = 65_536
# Beyond this size two objects are compared as texts only.
_MOST_COMPARED = 65_536
_EMPTY_OBJECT = re.compile(r"\s*\{\s*\}\s*")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_string = msgspec.json.Decoder(str).decode
_strings = msgspec.json.Decoder(list[str]).decode
#: Steps of reading, and what is read.
Reading = Generator[None, None, str | None]


class Arguments:
    """Arguments under construction.

    All fragments are kept, as only the end tells what they were meant to be.
    """

    __slots__ = ("_current", "_parsed", "_parts", "_scanned", "_size", "_unsorted", "_wholes")

    def __init__(self) -> None:
        self._parts: list[str | list[bytes]] = []  # fragments, and runs of them as they stood in JSON strings
        self._scanned = 0  # how many parts the following members know of
        self._unsorted = 0  # how many fragments they do not know of
        self._size = self._parsed = 0  # characters: of these fragments, and parsed
        self._wholes: list[str] = []  # the complete objects
        self._current: list[str] = []  # the fragments since the last of them

    def write(self, fragment: str) -> None:
        """Add a fragment."""
        self._parts.append(fragment)
        self._unsorted += 1
        if self._unsorted > _UNSORTED_FRAGMENTS:
            self._sort()

    def extend(self, escaped: list[bytes]) -> None:
        """Add fragments, each as it stands between the quotes of a JSON string."""
        self._parts.append(escaped)
        self._unsorted += len(escaped)
        if self._unsorted > _UNSORTED_FRAGMENTS:
            self._sort()

    def getvalue(self) -> str:
        """Return the fragments, joined."""
        return "".join(self.blocks())

    def blocks(self) -> Iterator[str]:
        """Yield the fragments, those of a run joined."""
        for part in self._parts:
            # Decoding all of a run at once is much faster, and mostly enough.
            yield part if isinstance(part, str) else _string(b'"%b"' % b"".join(part))

    def __repr__(self) -> str:
        return beginning(self.blocks())

    def joined(self) -> Generator[None, None, str | None]:
        """Return, by steps, the fragments, joined; ``None`` if there are more characters than are read."""
        joined: list[str] = []
        recent: list[str] = []
        size = begun = 0
        for part in self._parts:
            if isinstance(part, str):
                size += len(part)
                recent.append(part)
            else:
                escaped = b"".join(part)
                size += len(escaped)
                recent.append(_string(b'"%b"' % escaped))
            if size > _LONG_BYTES:
                return None
            if len(recent) >= _STEP_FRAGMENTS or size - begun > _STEP_BYTES:
                joined.append("".join(recent))
                recent.clear()
                begun = size
                yield
        return "".join((*joined, *recent))

    def are_blank(self) -> Generator[None, None, bool]:
        """Report, by steps, whether nothing but blanks came."""
        size = 0
        for number, block in enumerate(self.blocks()):
            if block and not block.isspace():
                return False
            size += len(block)
            if number % _STEP_FRAGMENTS == _STEP_FRAGMENTS - 1 or size > _STEP_BYTES:
                size = 0
                yield
        return True

    @property
    def complete(self) -> bool:
        """Whether the last thing that came is a complete object."""
        self._sort()
        return bool(self._wholes) and not self._current

    def are_said_again(self, text: str) -> bool:
        """Report whether `text` repeats or extends these arguments, which are complete."""
        return is_object(text) and _later(self._wholes[-1], text) is not None

    def readings(self, joined: str) -> Iterator[Reading]:
        """Yield the steps to what the fragments may have been meant to be, the likeliest first.

        :param joined: the fragments, joined.
        """
        yield self._cumulative()
        yield _read_at_once(_repeated(joined.strip()))
        yield _read_at_once(without_empty_object(joined))
        yield self._folded()

    def _flatten(self, start: int) -> Iterator[str]:
        """Yield the fragments from a part on, one by one."""
        for part in self._parts[start:]:
            if isinstance(part, str):
                yield part
            else:
                yield from _strings(b'["%b"]' % b'","'.join(part))

    def _sort(self) -> None:
        for _ in self._scan():
            pass

    def _scan(self) -> Iterator[None]:
        """Sort the fragments that came since the last scan, in steps; all scans together take linear time."""
        new = self._flatten(self._scanned)
        self._scanned = len(self._parts)
        self._unsorted = 0
        before = len(self._current)
        for at, fragment in enumerate(new):
            if at % _STEP_FRAGMENTS == _STEP_FRAGMENTS - 1:
                yield
            self._size += len(fragment)
            if self._size > _LONG_BYTES:
                continue  # nobody reads so much
            blank = not fragment or fragment.isspace()
            if not self._current and (blank or (self._wholes and not opens_object(fragment))):
                continue  # nothing continues a complete object
            self._current.append(fragment)
            if fragment.rstrip().endswith("}") and self._parsed <= 2 * self._size + _SPARE:
                text = "".join(self._current)
                self._parsed += len(text)
                if is_object(text):
                    self._wholes.append(text)
                    self._current = []
                    before = 0
        # Many small strings take far more memory than a long one.
        self._current[before:] = ["".join(self._current[before:])] if len(self._current) > before else []

    def _cumulative(self) -> Reading:
        """Return, by steps, what the fragments make if those that hold all before them replace it."""
        parts: list[str] = []
        length = 0
        for at, fragment in enumerate(dropwhile(_is_nothing, self._flatten(0))):
            if at % _STEP_FRAGMENTS == _STEP_FRAGMENTS - 1:
                yield
            # As only a fragment of that length is compared with the whole, this takes linear time.
            if len(fragment) >= length and fragment.startswith("".join(parts)):
                parts, length = [fragment], len(fragment)
            else:
                parts.append(fragment)
                length += len(fragment)
        return "".join(parts)

    def _folded(self) -> Reading:
        """Return, by steps, what the complete objects make, if each repeats or extends the one before."""
        yield from self._scan()
        if not self._wholes:
            return None
        whole = self._wholes[0]
        for at, further in enumerate(self._wholes[1:]):
            if at % _STEP_OBJECTS == _STEP_OBJECTS - 1:
                yield
            later = _later(whole, further)
            if later is None:
                return None
            whole = later
        return whole if whole.lstrip().startswith("".join(self._current).strip()) else None


def opens_object(text: str) -> bool:
    """Report whether `text` begins with a brace."""
    return text.lstrip().startswith("{")


def is_object(text: str) -> bool:
    """Report whether `text` is a JSON object, as `json` takes it."""
    try:
        _members(text)
        return True
    except (msgspec.DecodeError, RecursionError):
        if len(text) > MOST_READ or ("NaN" not in text and "Infinity" not in text):
            return False
    except UnicodeError:  # lone surrogates
        if len(text) > MOST_READ:
            return False
    try:
        return isinstance(decode_json(text.encode("utf-8", "replace")), dict)
    except ValueError:
        return False


def _read_at_once(reading: str | None) -> Reading:
    return reading
    yield


def _is_nothing(fragment: str) -> bool:
    return not fragment.strip() or _EMPTY_OBJECT.fullmatch(fragment) is not None


def _repeated(text: str) -> str | None:
    """Return what `text` consists of, if that stands in it twice or more."""
    period = (text + text).find(text, 1)
    return text[:period] if 0 < period < len(text) else None


def without_empty_object(joined: str) -> str | None:
    """Return the object that follows ``{}``, if one does, even if it was cut off."""
    empty = _EMPTY_OBJECT.match(joined)
    rest = "" if empty is None else joined[empty.end() :]
    return rest if opens_object(rest) else None


def _later(earlier: str, later: str) -> str | None:
    """Return which of two complete objects counts, or ``None`` if they contradict each other."""
    if earlier.strip() == later.strip() or _EMPTY_OBJECT.fullmatch(later):
        return earlier
    if _EMPTY_OBJECT.fullmatch(earlier):
        return later
    if max(len(earlier), len(later)) > _MOST_COMPARED:
        return None
    try:
        return later if _extends(_decoded(earlier), _decoded(later)) else None
    except (ValueError, RecursionError):  # nested too deep to compare
        return None


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
