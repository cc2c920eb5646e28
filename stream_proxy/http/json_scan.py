"""Scan of a JSON object as it arrives: its top-level members, found and validated piece by piece.

Each piece is completed to a whole text by what its place in the object asks for (the brackets around it, the
rest of a string or of a member), which the fast parser then validates. Only where a piece reaches the top
level, its tokens are looked at one by one.
"""

from __future__ import annotations

import codecs
import re
from enum import Enum

import msgspec

from stream_proxy.lenient_json import count_separators, is_verbatim

#: Bytes that are scanned in one step.
STEP_BYTES = 32_768
#: The most members that an object is taken apart into.
MOST_MEMBERS = 1024
# The longest number, word or row of closing brackets that is taken for JSON.
_LONGEST_TOKEN = 65_536

_BLANK = b" \t\n\r"
_NOT_CUTTING = bytes(set(range(256)) - set(b",:[{" + _BLANK))
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = frozenset(b"[{")
_CLOSING = bytes.maketrans(b"[{", b"]}")
_TOP_TOKENS = re.compile(rb'"[^"]*"|[\[\]{}:,]')
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB]")

_validate = msgspec.json.Decoder(msgspec.Raw).decode


class _Place(Enum):
    """Places between two pieces.

    The values: what completes the text before it, and what stands for that before the text behind it; in an
    array, and in an object.
    """

    COMMA = (b"0", b"[0,"), (b'"":0', b'{"":0,')
    OPENED = (b"", b"["), (b"", b"{")
    COLON = (b"0", b"["), (b"0", b'{"":')
    AFTER_KEY = (b":0", b"["), (b":0", b'{""')
    AFTER_VALUE = (b"", b"[0"), (b"", b'{"":0')
    IN_KEY = (b'":0', b"["), (b'":0', b'{"')
    IN_VALUE = (b'"', b'["'), (b'"', b'{"":"')


_AFTER = {b",": _Place.COMMA, b"[": _Place.OPENED, b"{": _Place.OPENED, b":": _Place.COLON}


class ObjectScan:
    """Scan of one text. Sans-I/O.

    :param max_values: how many values it may have.
    """

    def __init__(self, max_values: int) -> None:
        #: The text has too many values; nothing more is looked at.
        self.too_many = False
        #: The text is, as far as it came, an object that can be taken apart.
        self.valid = True
        #: Offsets of the outer braces, and of the colons and commas between the members: ``{ : , : , : }``.
        self.marks: list[int] = []
        self._values_left = max_values
        self._offset = 0  # of the first byte that is not taken
        self._rest = b""  # the bytes from there on
        self._place = _Place.AFTER_VALUE  # of that byte
        self._stack = bytearray()  # the brackets that are open there
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._is_utf8 = True
        self._has_surrogates = False

    def feed(self, data: bytes) -> None:
        """Add the next bytes; more than `STEP_BYTES` take longer than a step should."""
        if self.too_many:
            return
        self._check_utf8(data)
        text = self._rest + data
        plain = _without_escaped(text)
        tail = plain.rfind(b'"') + 1
        inside = (self._place in (_Place.IN_KEY, _Place.IN_VALUE)) ^ bool(plain.count(b'"') % 2)
        if inside:
            cut = _cut_in_string(plain, tail)
        else:
            cut = tail + len(plain[tail:].rstrip(_NOT_CUTTING))
            if cut == tail > 0:
                cut -= 1  # before the closing quote
                inside = True
        self._take(text, plain, cut, inside=inside)
        if len(self._rest) > _LONGEST_TOKEN:
            self.valid = False
            self._rest = b""

    def end(self) -> None:
        """End the text."""
        self._check_utf8(b"", final=True)
        if not self.too_many:
            rest = self._rest
            self._take(rest, _without_escaped(rest), len(rest), inside=False, final=True)
        if self._stack or len(self.marks) < 2 or (self._has_surrogates and not self._is_utf8):
            self.valid = False

    def _check_utf8(self, data: bytes, *, final: bool = False) -> None:
        if self._is_utf8:
            try:
                self._utf8.decode(data, final)
            except UnicodeDecodeError:
                self._is_utf8 = False

    def _take(self, text: bytes, plain: bytes, cut: int, *, inside: bool, final: bool = False) -> None:
        """Take the bytes before `cut`, and keep the rest.

        :param plain: `text` without escaped quotes.
        :param inside: `cut` is in a string.
        """
        taken = plain[:cut]
        began_inside = self._place in (_Place.IN_KEY, _Place.IN_VALUE)
        bare = b"".join(taken.split(b'"')[began_inside::2]) if began_inside or b'"' in taken else taken
        self._values_left -= count_separators(bare)
        if self._values_left < 0:
            self.too_many = True
            return
        if self.valid:
            before, depth = _before(self._place, self._stack, bool(self.marks)), len(self._stack)
            lowest = self._nest(bare)
            if lowest is None:
                self.valid = False
            else:
                place = self._place_at(taken, inside=inside)
                if min(lowest, depth) <= 1:
                    self._mark(taken, depth, inside=inside)
                self._place = place
                if not final:
                    before += text[:cut] + _behind(place, self._stack, bool(self.marks))
                else:
                    before += text
                self._validate(before)
        if not self.valid:
            self._place = _Place.IN_VALUE if inside else _Place.AFTER_VALUE
        self._rest = text[cut:]
        self._offset += cut

    def _nest(self, bare: bytes) -> int | None:
        """Open and close brackets, and return how few were open; ``None`` if they do not match."""
        brackets = bare.translate(None, _NO_BRACKETS)
        for _ in range(3):
            brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        stack = self._stack
        lowest = len(stack)
        for bracket in brackets:
            if bracket in _OPENING:
                stack.append(bracket)
            elif stack and stack[-1] == bracket - 2:
                stack.pop()
                if len(stack) < lowest:
                    lowest = len(stack)
            else:
                return None
        return lowest

    def _place_at(self, taken: bytes, *, inside: bool) -> _Place:
        """Return the place at the end of what is taken."""
        if inside:
            opening = taken.rfind(b'"')
            if opening < 0:
                return self._place
            return _Place.IN_KEY if self._opens_key(taken, opening) else _Place.IN_VALUE
        tail = taken.rfind(b'"') + 1
        last = taken[tail:].rstrip(_BLANK)[-1:]
        if last:
            return _AFTER.get(last, _Place.AFTER_VALUE)
        if not tail:
            return self._place
        opening = taken.rfind(b'"', 0, tail - 1)
        is_key = self._place is _Place.IN_KEY if opening < 0 else self._opens_key(taken, opening)
        return _Place.AFTER_KEY if is_key else _Place.AFTER_VALUE

    def _opens_key(self, taken: bytes, opening: int) -> bool:
        """Report whether the last string, which has its opening quote there, is a key."""
        if self._stack[-1:] != b"{":
            return False
        before = taken[taken.rfind(b'"', 0, opening) + 1 : opening].rstrip(_BLANK)[-1:]
        place = _AFTER.get(before) if before else self._place
        return place in (_Place.COMMA, _Place.OPENED)

    def _mark(self, taken: bytes, depth: int, *, inside: bool) -> None:
        """Note where the members at the top begin and end."""
        at = 0
        if self._place in (_Place.IN_KEY, _Place.IN_VALUE):
            at = taken.find(b'"') + 1
            if not at:
                return
        end = taken.rfind(b'"') if inside else len(taken)
        marks, offset = self.marks, self._offset
        for token in _TOP_TOKENS.finditer(taken, at, max(end, at)):
            match token[0]:
                case b"{" | b"[":
                    depth += 1
                    if depth == 1:
                        self.valid = self.valid and token[0] == b"{" and not marks
                        marks.append(offset + token.start())
                case b"}" | b"]":
                    depth -= 1
                    if depth == 0:
                        marks.append(offset + token.start())
                case b":" | b"," if depth == 1:
                    marks.append(offset + token.start())
            if len(marks) > 2 * MOST_MEMBERS + 1:
                self.valid = False
                break

    def _validate(self, text: bytes) -> None:
        try:
            _validate(text)
        except (msgspec.DecodeError, RecursionError):
            if is_verbatim(text):
                self._has_surrogates = True
            else:
                self.valid = False


def _without_escaped(text: bytes) -> bytes:
    """Return `text` with other bytes for escaped backslashes and quotes."""
    if b"\\" not in text:
        return text
    return text.replace(b"\\\\", b"__").replace(b'\\"', b"__")


def _cut_in_string(plain: bytes, start: int) -> int:
    """Return where an unfinished string, whose text begins at `start`, can be cut: not in an escape."""
    end = len(plain)
    escape = plain.rfind(b"\\", max(start, end - 11))
    if escape < 0:
        return end
    if plain[escape + 1 : escape + 2] not in (b"", b"u"):
        return end
    # The second half of a pair of surrogates may be still to come.
    if escape - 6 >= start and _HIGH_SURROGATE.match(plain, escape - 6):
        return end if escape + 6 <= end else escape - 6
    complete = escape + 6 <= end and not _HIGH_SURROGATE.match(plain, escape)
    return end if complete or escape + 12 <= end else escape


def _before(place: _Place, stack: bytearray, begun: bool) -> bytes:
    """Return what stands for the text before a place."""
    if not stack:
        return b"{}" if begun else b""
    around = bytes(stack[:-1]).replace(b"{", b'{"":')
    return around + place.value[stack[-1] == 0x7B][1]


def _behind(place: _Place, stack: bytearray, begun: bool) -> bytes:
    """Return what completes the text before a place."""
    if not stack:
        return b"" if begun else b"{}"
    return place.value[stack[-1] == 0x7B][0] + bytes(stack[::-1]).translate(_CLOSING)
