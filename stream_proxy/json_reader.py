"""Reader of JSON in steps, which accepts what `json` does: lone surrogates, NaN and infinities."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")
#: Work in steps, with a result.
Steps = Generator[None, None, T]

# Values, or characters of a string, that are decoded in one step by `json`.
_VALUES = 8192
# As deep as `json` goes at most.
_MOST_DEPTH = 900
# Some of a string's contents: 65,536 characters at most, and whole escapes. The quantifiers are possessive.
_CONTENTS = re.compile(
    r'(?:[^"\\\x00-\x1f]{1,16}+|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}'
    r'|\\u[0-9a-fA-F]{4}|\\["\\/bfnrt]){0,4096}+'
)
_BLANKS = re.compile(r"[ \t\n\r]*+")
# What opens an array or object, and what closes it.
_OPENED = {"{": "}", "[": "]"}

_decode_string = json.JSONDecoder().decode


def read_value(text: str, at: int, decoder: json.JSONDecoder) -> Steps[tuple[Any, int]]:
    """Return the value that begins in `text` at a position, and where it ends."""
    scan = _scanner(decoder)
    opened: list[Any] = []  # the arrays and objects around the value
    names: list[str] = []  # of the members that these are in, or the value is
    count = 0
    while True:
        count += 1
        if count % _VALUES == 0:
            yield
        first = text[at : at + 1]
        value: Any
        if first in _OPENED:
            container: Any = {} if first == "{" else []
            inner = skip_blanks(text, at + 1)
            if text[inner : inner + 1] != _OPENED[first]:
                opened.append(container)
                if len(opened) > _MOST_DEPTH:
                    raise ValueError("nested too deep")
                at = inner
                if first == "{":
                    name, at = yield from read_name(text, at)
                    names.append(name)
                continue
            value, at = container, inner + 1
        elif first == '"':
            value, at = yield from _string(text, at + 1)
        else:
            try:
                value, at = scan(text, at)
            except StopIteration:
                raise ValueError("no value where one is due") from None
        while opened:
            around = opened[-1]
            if isinstance(around, dict):
                around[names.pop()] = value
            else:
                around.append(value)
            at = skip_blanks(text, at)
            after = text[at : at + 1]
            if after == ",":
                at = skip_blanks(text, at + 1)
                if isinstance(around, dict):
                    name, at = yield from read_name(text, at)
                    names.append(name)
                break
            if after != ("}" if isinstance(around, dict) else "]"):
                raise ValueError("no comma where one is due")
            value = opened.pop()
            at += 1
        else:
            return value, at


def _scanner(decoder: json.JSONDecoder) -> Callable[[str, int], tuple[Any, int]]:
    return cast("Callable[[str, int], tuple[Any, int]]", cast(Any, decoder).scan_once)


def read_name(text: str, at: int) -> Steps[tuple[str, int]]:
    """Return the name of a member, and where its value begins."""
    if text[at : at + 1] != '"':
        raise ValueError("no name where one is due")
    name, at = yield from _string(text, at + 1)
    at = skip_blanks(text, at)
    if text[at : at + 1] != ":":
        raise ValueError("no colon where one is due")
    return name, skip_blanks(text, at + 1)


def _string(text: str, at: int) -> Steps[tuple[str, int]]:
    """Return the string whose contents begin at a position, and where it ends."""
    parts: list[str] = []
    while True:
        end = _end_of_contents(text, at)
        parts.append(_decode_string(f'"{text[at:end]}"'))
        if text[end : end + 1] == '"':
            return parts[0] if len(parts) == 1 else "".join(parts), end + 1
        if end == at:
            raise ValueError("a string that does not end, or holds what it may not")
        at = end
        yield


def _end_of_contents(text: str, at: int) -> int:
    contents = _CONTENTS.match(text, at)
    return at if contents is None else contents.end()


def skip_blanks(text: str, at: int) -> int:
    """Return the position of what follows the blanks at a position."""
    blanks = _BLANKS.match(text, at)
    return at if blanks is None else blanks.end()
