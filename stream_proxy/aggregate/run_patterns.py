"""Patterns of runs: which bytes similar chunks share, and where the text between them belongs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stream_proxy.aggregate.merge import Object
from stream_proxy.lenient_json import decode_json

FIELD = b"data: "
EVENT_END = b"\n\n"
# The strings whose fragments concatenate, and the padding against traffic analysis, which is dropped anyway.
_TEXT = re.compile(rb'(?<!\\)"(content|reasoning_content|reasoning|refusal|arguments)":\s*"(?!")')
_PADDING = re.compile(rb'(?<!\\)"(?:obfuscation|p)":\s*"')
_CONCATENATED = frozenset({"content", "reasoning_content", "reasoning", "refusal"})
# Contents of JSON strings (RFC 8259 section 7), one a line. Surrogates are excluded: the halves of a pair in
# two chunks mean something else together. The quantifiers are possessive, so that matching takes linear time.
_STRING_CONTENTS = re.compile(
    rb'(?:[^"\\\x00-\x1f]++|\n|\\["\\/bfnrt]|\\u(?:[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}))*+'
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """The bytes that the chunks of a run share: ``start``, text, ``end``.

    With padding they are ``start``, text, ``middle``, padding, ``end``.
    """

    start: bytes
    end: bytes
    middle: bytes | None


@dataclass(frozen=True, slots=True)
class TextPath:
    """Path of a run's text: the choice's index, the key in its delta, and the index of a tool call."""

    index: int
    key: str
    call: int | None


def texts_of(pattern: Pattern, pieces: list[bytes]) -> list[bytes] | None:
    """Return the texts of a run's chunks; return ``None`` if one of `pieces` is not such a chunk."""
    if pattern.middle is not None:
        halves = [piece.partition(pattern.middle) for piece in pieces]
        paddings = [padding for _, _, padding in halves]
        if not all(found for _, found, _ in halves) or not _are_contents(paddings):
            return None
        pieces = [text for text, _, _ in halves]
    return pieces if _are_contents(pieces) else None


def _are_contents(texts: list[bytes]) -> bool:
    """Report whether each of `texts` is valid between the quotes of a JSON string."""
    # One match of all texts is much faster than one each; a line end within a text shows in the count.
    lines = b"\n".join(texts)
    if _STRING_CONTENTS.fullmatch(lines) is None or lines.count(b"\n") >= len(texts):
        return False
    if lines.isascii():
        return True
    try:
        lines.decode()
    except UnicodeDecodeError:
        return False
    return True


def pattern_of(event: bytes) -> Pattern | None:
    """Return the pattern of an event, if it is one line with one text in it."""
    if not event.startswith(FIELD) or event.find(b"\n") != len(event) - len(EVENT_END):
        return None
    matches = list(_TEXT.finditer(event))
    if len(matches) != 1:
        return None
    start = matches[0].end()
    end = _end_of_string(event, start)
    padding = _PADDING.search(event, end) if end >= 0 else None
    if padding is None:
        return None if end < 0 else Pattern(event[:start], event[end:], None)
    after = _end_of_string(event, padding.end())
    return None if after < 0 else Pattern(event[:start], event[after:], event[end : padding.end()])


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
