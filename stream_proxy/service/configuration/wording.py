"""Words of the messages about mistakes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Sequence
from typing import Any

#: Longest part of a value that a message repeats.
_MOST_SHOWN = 60


def one_line(text: object) -> str:
    """Return `text` without line breaks, and with what UTF-8 cannot hold escaped."""
    return " ".join(str(text).encode("utf-8", "backslashreplace").decode().split())


def shown(value: object) -> str:
    """Return a value as a message repeats it: lists and objects only by their kind."""
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > _MOST_SHOWN:
        return "a long text" if isinstance(value, str) else "a long number"
    return one_line(text)


def either(words: Sequence[str]) -> str:
    """Return alternatives as one phrase: ``a, b or c``."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def nearest(text: str, known: Collection[str]) -> str | None:
    """Return what was probably meant by `text`, if that is one of the `known`."""
    forms = {_bare(each): each for each in known}
    bare = _bare(text)
    if bare in forms:
        return forms[bare]
    close = difflib.get_close_matches(bare, forms, 1, 0.7)
    if not close and len(bare) > 2:  # a part of it, as in "port" for "listenPort"
        close = sorted((each for each in forms if each.startswith(bare) or each.endswith(bare)), key=len)
    return forms[close[0]] if close else None


def plain_numbers(value: Any) -> Any:
    """Return a JSON value with whole numbers as such: 600 instead of 600.0."""
    match value:
        case dict():
            return {key: plain_numbers(each) for key, each in value.items()}
        case list():
            return list(map(plain_numbers, value))
        case float() if value.is_integer():
            return int(value)
    return value


def _bare(text: str) -> str:
    return text.lower().replace("_", "").replace("-", "")
