"""A shorter way through runs of like chunks.

Most chunks of a chat stream are the chunk before with another text in one string. A run of them is recognised
by its bytes: everything around that string is the same, so the chunks need not be decoded one by one, and
their texts, still escaped, are joined and decoded together. Whatever is not exactly so goes the plain way,
:class:`~stream_proxy.SSEDecoder` and :class:`~stream_proxy.ChatCompletionsAccumulator`, whose answer is the
same byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import repeat, takewhile
from typing import Any

import msgspec

from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.merge import Object
from stream_proxy.aggregate.sse import SSEDecoder
from stream_proxy.lenient_json import decode_json

_FIELD = b"data: "
_END = b"\n\n"
# No chunk of a run is longer: what is kept of an event under way, beside what the decoder keeps.
_LONGEST = 65_536
# After so many events without a run none is looked for during a read, then two, four, up to 256.
_PATIENCE = 8
_LONGEST_PAUSE = 8
# The strings whose fragments concatenate, and the padding against traffic analysis, which means nothing.
_TEXT = re.compile(rb'(?<!\\)"(content|reasoning_content|reasoning|refusal|arguments)":\s*"(?!")')
_PADDING = re.compile(rb'(?<!\\)"obfuscation":\s*"')
_CONCATENATED = frozenset({"content", "reasoning_content", "reasoning", "refusal"})
# The inside of JSON strings (RFC 8259 section 7), a line each. No surrogates: two halves in two chunks are
# not what they are together. Nothing is tried twice, so that it takes linear time.
_INSIDES = re.compile(
    rb'(?:[^"\\\x00-\x1f]++|\n|\\["\\/bfnrt]|\\u(?:[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}))*+'
)
_decode_string = msgspec.json.Decoder(str).decode


@dataclass(frozen=True, slots=True)
class _Pattern:
    """The chunks of a run: ``start``, the text, ``end``; or with padding between two halves of the end."""

    start: bytes
    end: bytes
    middle: bytes | None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the text of a run goes."""

    index: int
    key: str
    call: object | None

    def delta(self, text: str) -> Object:
        """The delta that adds `text` there."""
        if self.call is None:
            return {self.key: text}
        return {"tool_calls": [{"index": self.call, "function": {"arguments": text}}]}


class ChatRuns:
    """Feeds an accumulator with a stream, as decoding all of its events and feeding them one by one would.

    :param events: the decoder of the stream.
    :param answer: the accumulator.
    """

    def __init__(self, events: SSEDecoder, answer: ChatCompletionsAccumulator) -> None:
        self._events = events
        self._answer = answer
        self._event = bytearray()  # what has come of the event under way
        self._whole = False  # that is all of it
        self._last: _Pattern | None = None  # of the event before
        self._refused: _Pattern | None = None  # one that is no run's
        self._pattern: _Pattern | None = None  # of the run under way
        self._place = _Place(0, "", None)
        self._futile = 0  # events on the plain way since the last run
        self._pause = 0  # reads for which no run is looked for
        self._pauses = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream.

        :raises APIError: as the decoder and the accumulator do.
        """
        if b"\r" in data:
            self._all_plain(data)
            return
        if self._pause:
            self._pause -= 1
            self._all_plain(data)
            return
        while data and not self._answer.complete:
            pattern = self._pattern
            if pattern is not None and not self._event and data.startswith(pattern.start):
                taken = self._run(pattern, data)
                if taken:
                    if taken * 4 >= len(data):
                        self._futile = self._pauses = 0
                    else:  # all of the read was looked at for little of it
                        self._futile += 1
                    data = data[taken:]
                    continue
            self._futile += 1
            if self._futile > _PATIENCE:
                # This stream has no runs, such as one of two choices in turn: looking for them costs more.
                self._futile = 0
                self._pause = 1 << min(self._pauses, _LONGEST_PAUSE)
                self._pauses += 1
                self._all_plain(data)
                return
            end = self._end_of_event(data)
            self._plain(data[:end])
            data = data[end:]

    def _all_plain(self, data: bytes) -> None:
        self._event.clear()
        self._last = self._pattern = None
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        for event in self._events.feed(data):
            self._answer.feed(event)
            if self._answer.complete:
                return

    def _end_of_event(self, data: bytes) -> int:
        if self._event.endswith(b"\n") and data.startswith(b"\n"):
            return 1
        end = data.find(_END)
        return len(data) if end < 0 else end + len(_END)

    def _plain(self, data: bytes) -> None:
        """Go the plain way with an event, or a part of one; two of a pattern begin a run."""
        if not self._event:
            self._whole = self._events.between_events
        self._feed(data)
        self._event += data
        if not self._event.endswith(_END):
            if len(self._event) > _LONGEST:
                self._whole = False
                del self._event[:-1]
            return
        event = bytes(self._event)
        self._event.clear()
        pattern = _pattern(event) if self._whole and self._events.between_events else None
        if pattern is not None and pattern == self._pattern:
            return
        begins = pattern is not None and pattern == self._last and pattern != self._refused
        self._last, self._pattern = pattern, None
        if begins and pattern is not None:
            place = _place(pattern)
            if place is None or not self._answer.lengthens(place.index, place.delta("x")):
                self._refused = pattern
            else:
                self._pattern, self._place = pattern, place

    def _run(self, pattern: _Pattern, data: bytes) -> int:
        """Take the chunks of a run that `data` begins with; how many bytes they are is returned."""
        if len(data) >= min(self._answer.room(), self._events.max_event_bytes):
            return 0
        start, end = pattern.start, pattern.end
        *pieces, _ = data.split(end)
        if not all(map(bytes.startswith, pieces, repeat(start))):
            pieces = list(takewhile(lambda piece: piece.startswith(start), pieces))
        texts = [piece[len(start) :] for piece in pieces]
        text = _joined(pattern, texts)
        if text is None:  # one of them only looks like a chunk of the run
            texts = list(takewhile(lambda text: _joined(pattern, [text]) is not None, texts))
            text = _joined(pattern, texts)
        if not text:
            return 0
        data_bytes = sum(map(len, texts)) + len(texts) * (len(start) + len(end) - len(_FIELD) - len(_END))
        self._answer.add_text(
            self._place.index, self._place.delta(_decode_string(b'"%b"' % text)), data_bytes
        )
        return data_bytes + len(texts) * (len(_FIELD) + len(_END))


def _joined(pattern: _Pattern, pieces: list[bytes]) -> bytes | None:
    """The texts of a run's chunks, joined; ``None`` if one of `pieces` is no such chunk."""
    if pattern.middle is not None:
        halves = [piece.partition(pattern.middle) for piece in pieces]
        if not all(found for _, found, _ in halves) or not _insides([padding for _, _, padding in halves]):
            return None
        pieces = [text for text, _, _ in halves]
    return b"".join(pieces) if _insides(pieces) else None


def _insides(texts: list[bytes]) -> bool:
    """Whether each of `texts` may stand in a JSON string as it is."""
    lines = b"\n".join(texts)
    if _INSIDES.fullmatch(lines) is None or lines.count(b"\n") >= len(texts):
        return False
    if lines.isascii():
        return True
    try:
        lines.decode()
    except UnicodeDecodeError:
        return False
    return True


def _pattern(event: bytes) -> _Pattern | None:
    """The pattern of an event, if it is one line with one text in it."""
    if not event.startswith(_FIELD) or event.find(b"\n") != len(event) - len(_END):
        return None
    matches = list(_TEXT.finditer(event))
    if len(matches) != 1:
        return None
    start = matches[0].end()
    end = _end_of_string(event, start)
    padding = _PADDING.search(event, end) if end >= 0 else None
    if padding is None:
        return None if end < 0 else _Pattern(event[:start], event[end:], None)
    after = _end_of_string(event, padding.end())
    return None if after < 0 else _Pattern(event[:start], event[after:], event[end : padding.end()])


def _end_of_string(event: bytes, start: int) -> int:
    inside = _INSIDES.match(event, start)
    end = start if inside is None else inside.end()
    return end if event[end : end + 1] == b'"' else -1


def _place(pattern: _Pattern) -> _Place | None:
    """Where the text of a pattern's chunks goes, if that is all that they say anew when they come again."""
    # A text that is nowhere else shows where it goes, whatever keys come twice or are written with escapes.
    mark = "x" * (len(pattern.start) + len(pattern.middle or b"") + len(pattern.end))
    padding = None if pattern.middle is None else "y" * len(mark)
    middle = b"" if padding is None else (pattern.middle or b"") + padding.encode()
    try:
        chunk = decode_json(pattern.start[len(_FIELD) :] + mark.encode() + middle + pattern.end[: -len(_END)])
    except ValueError:
        return None
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return None
    if chunk.get("error") is not None or chunk.get("usage") is not None or chunk.get("object") == "error":
        return None
    if padding is not None and chunk.get("obfuscation") != padding:
        return None
    choice = choices[0]
    index, delta = choice.get("index"), choice.get("delta")
    if type(index) is not int:
        index = 0
    quiet = all(choice.get(key) in (None, "") for key in ("finish_reason", "logprobs", "message"))
    if not quiet or not isinstance(delta, dict):
        return None
    told = _told(delta)
    if told.keys() == {"tool_calls"}:
        return _call_place(index, told["tool_calls"], mark)
    if len(told) != 1:
        return None
    key, text = next(iter(told.items()))
    return _Place(index, key, None) if key in _CONCATENATED and text == mark else None


def _call_place(index: int, calls: Any, mark: str) -> _Place | None:
    call = calls[0] if isinstance(calls, list) and len(calls) == 1 else None
    if not isinstance(call, dict) or type(call.get("index")) is not int:
        return None
    told = _told(call)
    function = told.get("function")
    if told.keys() != {"index", "function"} or not isinstance(function, dict):
        return None
    arguments = _told(function)
    if arguments.keys() != {"arguments"} or arguments["arguments"] != mark:
        return None
    return _Place(index, "arguments", call["index"])


def _told(members: Object) -> Object:
    """What changes an answer to which it has been added before."""
    return {
        key: value
        for key, value in members.items()
        if value not in (None, "") and not (key == "role" and isinstance(value, str))
    }
