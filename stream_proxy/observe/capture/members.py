"""Blanking of JSON members with telling names in a text as it comes, without parsing all of it. Sans-I/O.

The text may be one document, a stream of events or lines, or none at all. JSON inside of a JSON string is
seen too: there each quote has backslashes before it.
"""

from __future__ import annotations

import re

from stream_proxy.observe.capture.secrets import BLANK, WORDS, is_telling

_BLANKS = rb"[ \t\r\n]{0,64}"
#: A name and its colon: its characters, and the backslashes before its closing quote.
_NAME = re.compile(rb'"([^"\\\x00-\x1f]{1,128})(\\*)"' + _BLANKS + rb":" + _BLANKS)
#: The end of a text that may become one.
_TAIL = re.compile(rb'"[^"\\\x00-\x1f]{0,128}(?:\\+|\\*"' + _BLANKS + rb"(?::" + _BLANKS + rb"\\*)?)?\Z")
_TAIL_BYTES = 512
_TOKEN = re.compile(rb'["{}\[\]]')
#: A string that has more blanks behind it is no name: what decides is held back.
_SPACE = re.compile(_BLANKS + rb"+")
#: A string with the colon that makes it a name, one that has not ended, or a bracket.
_ITEM = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"(' + _BLANKS + rb"+)(:)?|\\?\Z)|[{}\[\]]", re.DOTALL)
_SESSION = re.compile(rb"sessions?", re.IGNORECASE)
#: A longer string in an object is no name.
_NAME_BYTES = 1024
#: Of so many backslashes at an end as many are held as decide what a quote behind them means.
_SLASHES = 64
#: The start of OpenAI's ephemeral keys, which stand in a member called ``value``.
_EPHEMERAL = b"ek_"

#: In a text without any of these nothing is to be blanked.
_SIGNS = (*WORDS, b"headers", b"value")

_QUOTE, _OPENING = ord('"'), b"{["
_PLAIN, _STRING, _CONTAINER = range(3)


class MemberBlanker:
    """One text on its way into a capture: every string under a telling name becomes ``***``.

    Numbers, such as counts of tokens, stay. In an object or an array under such a name, every string goes.
    At most a name and what is around it is held back.
    """

    def __init__(self) -> None:
        self._held = b""
        self._state = _PLAIN
        #: Where a string that is dropped leads back to.
        self._after = _PLAIN
        #: What has come may hold a telling name.
        self._may_tell = False
        #: The backslashes before each quote.
        self._slashes = 0
        #: The open brackets.
        self._depth = 0

    def feed(self, data: bytes) -> bytes:
        """Return what is certain of the text so far and has not been returned."""
        data, self._held = self._held + data, b""
        lower = data.lower()
        self._may_tell = any(sign in lower for sign in _SIGNS)
        out: list[bytes] = []
        at: int | None = 0
        while at is not None and at < len(data):
            if self._state == _PLAIN:
                at = self._plain(data, at, out)
            elif self._state == _STRING:
                at = self._string(data, at, out)
            elif self._slashes:
                at = self._inner_container(data, at, out)
            else:
                at = self._container(data, at, out)
        return b"".join(out)

    def end(self) -> bytes:
        """Return the rest of the text."""
        held, self._held = self._held, b""
        if self._state == _PLAIN:
            return held
        return BLANK if held and self._state == _CONTAINER else b""

    @property
    def _quote(self) -> bytes:
        return b"\\" * self._slashes + b'"'

    def _plain(self, data: bytes, at: int, out: list[bytes]) -> int | None:
        """Go on to the next telling name, and behind its colon."""
        for match in _NAME.finditer(data, at) if self._may_tell else ():
            name, slashes, begin = match[1], len(match[2]), match.end()
            ephemeral = name == b"value"
            if not ephemeral and not _is_telling(name):
                continue
            quote = b"\\" * slashes + b'"'
            wanted = quote + _EPHEMERAL if ephemeral else quote
            there = data[begin : begin + len(wanted)]
            if there == wanted:
                self._slashes, self._state, self._after = slashes, _STRING, _PLAIN
                begin += len(quote)
                out += (data[at:begin], BLANK)
                return begin
            if wanted.startswith(there):
                self._wait(data, at, match.start(), out)
                return None
            if there[:1] in (b"{", b"[") and not ephemeral and _hides_strings(name):
                self._slashes, self._state, self._depth = slashes, _CONTAINER, 0
                out.append(data[at:begin])
                return begin
        tail = _TAIL.search(data, max(at, len(data) - _TAIL_BYTES))
        self._wait(data, at, len(data) if tail is None else tail.start(), out)
        return None

    def _string(self, data: bytes, at: int, out: list[bytes]) -> int | None:
        """Drop a string up to its closing quote."""
        end = self._end_of_string(data, at)
        if end is None:
            slashes = _slashes_before(data, at, len(data))
            if slashes > _SLASHES:
                slashes = slashes % _SLASHES + _SLASHES
            self._held = data[len(data) - slashes :]
            return None
        self._state = self._after
        out.append(self._quote)
        return end

    def _container(self, data: bytes, at: int, out: list[bytes]) -> int | None:
        """Keep the brackets, names and numbers of an object or array."""
        for match in _ITEM.finditer(data, at):
            begin = match.start()
            if data[begin] == _QUOTE:
                if match[2] is not None:
                    continue
                if match.end() == len(data):
                    if match[1] is None and len(data) - begin > _NAME_BYTES:
                        self._state, self._after = _STRING, _CONTAINER
                        out += (data[at : begin + 1], BLANK)
                        return begin + 1
                    self._wait(data, at, begin, out)
                    return None
                out += (data[at:begin], b'"', BLANK, b'"')
                at = match.start(1)
                continue
            self._depth += 1 if data[begin] in _OPENING else -1
            if self._depth == 0:
                self._state = _PLAIN
                out.append(data[at : begin + 1])
                return begin + 1
        self._wait(data, at, len(data), out)
        return None

    def _inner_container(self, data: bytes, at: int, out: list[bytes]) -> int | None:
        """Keep a bracket of an object or array within a string, or a string in it if that is a name."""
        match = _TOKEN.search(data, at)
        if match is None:
            self._wait(data, at, len(data) - _slashes_before(data, at, len(data)) % _SLASHES, out)
            return None
        begin = match.end()
        if data[begin - 1] != _QUOTE:
            self._depth += 1 if data[begin - 1] in _OPENING else -1
            if self._depth == 0:
                self._state = _PLAIN
            out.append(data[at:begin])
            return begin
        start = begin - 1 - _slashes_before(data, at, begin - 1)
        if begin - 1 - start < self._slashes:  # the string around all of this has ended
            self._state = _PLAIN
            out.append(data[at:start])
            return start
        end = self._end_of_string(data, begin)
        if end is None and len(data) - begin > _NAME_BYTES:
            self._state, self._after = _STRING, _CONTAINER
            out += (data[at:begin], BLANK)
            return begin
        space = None if end is None else _SPACE.match(data, end)
        if end is None or space is None or space.end() == len(data):
            self._wait(data, at, start, out)
            return None
        if data[space.end() : space.end() + 1] == b":":
            out.append(data[at:end])
        else:
            out += (data[at:begin], BLANK, self._quote)
        return end

    def _wait(self, data: bytes, at: int, end: int, out: list[bytes]) -> None:
        """Give out what is certain, and hold the rest until more has come."""
        end = max(at, end)
        out.append(data[at:end])
        self._held = data[end:]

    def _end_of_string(self, data: bytes, at: int) -> int | None:
        """Return where the string that goes on at `at` has ended, its closing quote included."""
        own = self._slashes
        place = data.find(b'"', at)
        while place >= 0:
            found = _slashes_before(data, at, place)
            if found < own:  # it was cut, and the string around it ends here
                return place - found
            if found % (2 * own + 2) == own:
                return place + 1
            at = place + 1
            place = data.find(b'"', at)
        return None


def _slashes_before(data: bytes, at: int, place: int) -> int:
    """Return how many backslashes are before a place, from `at` on."""
    return place - at - len(data[at:place].rstrip(b"\\"))


def _is_telling(name: bytes) -> bool:
    return is_telling(name) or name.lower().endswith(b"headers")


def _hides_strings(name: bytes) -> bool:
    """Report whether all strings in an object or array of this name are secrets.

    A Realtime session is an object with ordinary members.
    """
    return _is_telling(_SESSION.sub(b"", name))
