"""Patterns of runs: which bytes similar chunks share, and where the text between them belongs."""

from __future__ import annotations

import re

import msgspec

from stream_proxy.aggregate.merge import Object
from stream_proxy.aggregate.reading.stream_reader import EVENT_END
from stream_proxy.lenient_json import decode_json

FIELD = b"data: "
# The strings whose fragments concatenate, and the padding against traffic analysis, which is dropped anyway.
_TEXT_KEYS = (b'"content":', b'"reasoning_content":', b'"reasoning":', b'"refusal":', b'"arguments":')
_PADDING_KEYS = (b'"obfuscation":', b'"p":')
_CONCATENATED = frozenset({"content", "reasoning_content", "reasoning", "refusal"})
# Contents of a JSON string (RFC 8259 section 7). The quantifiers are possessive: matching takes linear time.
_STRING_CONTENTS = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\.)*+', re.DOTALL)
# A character that may stand in a JSON string, and at whose sides nothing can belong together.
_DIVIDER = "\x7f"
_DIVIDER_BYTE = _DIVIDER.encode()
_decode_string = msgspec.json.Decoder(str).decode


class Pattern:
    """The bytes that the chunks of a run share: ``start``, text, ``end``.

    With padding they are ``start``, text, ``middle``, padding, ``end``.
    """

    __slots__ = ("between", "end", "middle", "start")

    def __init__(self, start: bytes, end: bytes, middle: bytes | None) -> None:
        self.start = start
        self.end = end
        self.middle = middle
        #: What stands between the texts of two chunks.
        self.between = end + start

    def piece(self, event: bytes) -> bytes | None:
        """Return the text of an event that is a chunk of the run, still escaped, ``None`` if it is none.

        The text has yet to be decoded to be sure of it.
        """
        head, tail = len(self.start), len(self.end)
        if len(event) < head + tail or not (event.startswith(self.start) and event.endswith(self.end)):
            return None
        piece = event[head:-tail]
        if self.middle is not None:
            piece, found, padding = piece.partition(self.middle)
            if not found or decoded(padding) is None:
                return None
        return piece

    def end_of_run(self, data: bytes, at: int, end: int) -> int:
        """Return where the last chunk ends that looks like one of the run, `at` if none does.

        :param at: where an event begins with ``start``.
        :param end: where the last event ends.
        """
        last = data.rfind(self.between, at, end)
        start = at if last < 0 else last + len(self.end)
        stop = data.find(EVENT_END, start + len(self.start)) + len(EVENT_END)
        text_end = stop - len(self.end)
        return stop if text_end >= start + len(self.start) and data.startswith(self.end, text_end) else start

    def end_of_valid(self, data: bytes, at: int, end: int) -> int:
        """Return where the chunks of the run end that `data` has from a position on, looking at each."""
        while at < end:
            stop = data.find(EVENT_END, at) + len(EVENT_END)
            piece = self.piece(data[at:stop])
            if piece is None or decoded(piece) is None:
                break
            at = stop
        return at

    def texts(self, data: bytes, at: int, end: int) -> list[bytes] | None:
        """Return the texts of the chunks that are in `data` between two positions, still escaped.

        :return: ``None`` if there is anything else. The texts have yet to be joined to be sure of them.
        """
        head, tail = len(self.start), len(self.end)
        if end - at < head + tail:
            return None
        lines = data[at:end].split(b"\n")
        # Cut where the texts ought to be; that they are there shows when the rest is put between them again.
        cut = len(EVENT_END) - tail
        texts = [line[head:cut] for line in lines[:-1:2]]
        if self.between.join(texts) != data[at + head : end - tail] or not data.startswith(self.start, at):
            return None
        if self.middle is not None:
            halves = [text.partition(self.middle) for text in texts]
            texts = [text for text, _, _ in halves]
            paddings = [padding for _, _, padding in halves]
            if not all(found for _, found, _ in halves) or joined(paddings) is None:
                return None
        return texts


class TextPath:
    """Path of a run's text: the choice's index, the key in its delta, and the index of a tool call."""

    __slots__ = ("call", "index", "key")

    def __init__(self, index: int, key: str, call: int | None) -> None:
        self.index = index
        self.key = key
        self.call = call


def decoded(text: bytes) -> str | None:
    """Return a string, given as what stands between its quotes in JSON, ``None`` if it is not valid."""
    try:
        return _decode_string(b'"%b"' % text)
    except ValueError:
        return None


def joined(texts: list[bytes]) -> str | None:
    """Return what strings amount to, each given as what stands between its quotes in JSON.

    :return: ``None`` if one of them is not valid. The halves of a surrogate pair are not: in two chunks they
        mean something else together.
    """
    try:
        # One string is decoded much faster than many.
        text = _decode_string(b'"%b"' % _DIVIDER_BYTE.join(texts))
        if text.count(_DIVIDER) == len(texts) - 1:
            return text.replace(_DIVIDER, "")
        return "".join([_decode_string(b'"%b"' % each) for each in texts])
    except ValueError:
        return None


def pattern_of(event: bytes) -> Pattern | None:
    """Return the pattern of an event, if it is one line with one text in it."""
    if not event.startswith(FIELD) or event.find(b"\n") != len(event) - len(EVENT_END):
        return None
    # Where JSON is known, to find a few words in it is much faster than an expression.
    starts = [start for key in _TEXT_KEYS for start in _strings(event, key, 0)]
    if len(starts) != 1:
        return None
    start = starts[0]
    end = _end_of_string(event, start)
    if end < 0:
        return None
    paddings = [padding for key in _PADDING_KEYS for padding in _strings(event, key, end)]
    if not paddings:
        return Pattern(event[:start], event[end:], None)
    padding = min(paddings)
    after = _end_of_string(event, padding)
    return None if after < 0 else Pattern(event[:start], event[after:], event[end:padding])


def _strings(event: bytes, key: bytes, at: int) -> list[int]:
    """Return where the strings under a key begin that are not empty, after their quotation marks.

    :param key: the key as it is spelled, with its colon.
    :param at: where to begin.
    """
    starts = []
    while (at := event.find(key, at)) >= 0:
        escaped = event[at - 1 : at] == b"\\"
        at += len(key)
        start = at + (event[at : at + 1] == b" ")
        if not escaped and event[start : start + 1] == b'"' and event[start + 1 : start + 2] != b'"':
            starts.append(start + 1)
    return starts


def _end_of_string(event: bytes, start: int) -> int:
    contents = _STRING_CONTENTS.match(event, start)
    end = start if contents is None else contents.end()
    return end if event[end : end + 1] == b'"' else -1


def text_path(pattern: Pattern) -> TextPath | None:
    """Return the path of the text in a pattern's chunks, if nothing else in them changes the result."""
    # A text that occurs nowhere else in the chunk shows its path when decoded. The bytes alone would not: of
    # duplicate keys the last wins, and keys may be written with escapes.
    mark = "x" * (len(pattern.start) + len(pattern.middle or b"") + len(pattern.end))
    padding = None if pattern.middle is None else "y" * len(mark)
    middle = b"" if padding is None else (pattern.middle or b"") + padding.encode()
    try:
        event = pattern.start + mark.encode() + middle + pattern.end
        chunk = decode_json(event[len(FIELD) : -len(EVENT_END)])
    except ValueError:
        return None
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return None
    if chunk.get("error") is not None or chunk.get("usage") is not None or chunk.get("object") == "error":
        return None
    if padding is not None and padding not in (chunk.get("obfuscation"), chunk.get("p")):
        return None
    choice = choices[0]
    index, delta = choice.get("index"), choice.get("delta")
    if type(index) is not int:
        index = 0
    quiet = all(choice.get(key) in (None, "") for key in ("finish_reason", "logprobs", "message"))
    if not quiet or not isinstance(delta, dict):
        return None
    if any(value and (key == "text" or isinstance(value, list)) for key, value in choice.items()):
        return None  # they grow with each chunk
    changes = _changes(delta)
    if changes.keys() == {"tool_calls"}:
        return _call_text_path(index, changes["tool_calls"], mark)
    if len(changes) != 1:
        return None
    key, text = next(iter(changes.items()))
    return TextPath(index, key, None) if key in _CONCATENATED and text == mark else None


def _call_text_path(index: int, calls: object, mark: str) -> TextPath | None:
    call = calls[0] if isinstance(calls, list) and len(calls) == 1 else None
    if not isinstance(call, dict) or type(call.get("index")) is not int:
        return None
    changes = _changes(call)
    function = changes.get("function")
    if changes.keys() != {"index", "function"} or not isinstance(function, dict):
        return None
    arguments = _changes(function)
    if arguments.keys() != {"arguments"} or arguments["arguments"] != mark:
        return None
    return TextPath(index, "arguments", call["index"])


def _changes(members: Object) -> Object:
    """Return the members that would change the result if the chunk were merged again."""
    return {
        key: value
        for key, value in members.items()
        if value not in (None, "") and not (key == "role" and isinstance(value, str))
    }
