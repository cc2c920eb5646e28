"""Outlines of payloads: their names and types without their values, for an error that says what came."""

from __future__ import annotations

import json
import re
from collections import Counter

from stream_proxy.adapter.shapes.kinds import TAGS, UNNAMED
from stream_proxy.json_steps import Steps, decode_steps
from stream_proxy.lenient_json import JSON, encode_json

_MOST_SHAPES = 6  # shown, and ten times as many told apart
_MOST_PAYLOADS = 1000
_LONGEST = 200
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Strings that are not the text, whatever their length.
_NO_TEXT = re.compile(r"(?i)(^|[._])(\w*id|created\w*|role|type|event|model|timestamp|object|status)$")


class Outlines:
    """The payloads in which nothing was found, by the name of their event and their shape."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        #: How many there were.
        self.count = 0
        self._suggestion: tuple[int, str] = (0, "")

    def add(self, event: str, data: bytes) -> Steps[None]:
        """Count a payload, in steps."""
        self.count += 1
        if self.count > _MOST_PAYLOADS:
            return
        try:
            value: JSON = yield from decode_steps(data)
        except ValueError:
            value, shape = None, "plain text"
        else:
            shape = _outline(value, 3, tags=True)
        shape = shape if len(shape) <= _LONGEST else shape[:_LONGEST] + "…"
        if (event, shape) in self._counts or len(self._counts) < 10 * _MOST_SHAPES:
            self._counts[event, shape] += 1
        self._suggestion = max(self._suggestion, _longest_text(value))

    def summary(self) -> str:
        """Return what came, with counts, the most frequent first."""
        shown = [
            f"{count}x {'' if event == UNNAMED else f'event {event} '}{shape}"
            for (event, shape), count in self._counts.most_common(_MOST_SHAPES)
        ]
        more = len(self._counts) - len(shown)
        return "; ".join(shown) + (f"; and {more} more shapes" if more > 0 else "")

    def advice(self) -> str:
        """Return what to write."""
        _, path = self._suggestion
        example = f", for example {json.dumps(path, ensure_ascii=False)}" if path else ""
        named = [event for event, shape in self._counts if shape == "plain text" and event != UNNAMED]
        if named and not path:
            return f"Set the adapter's events to those with the text, for example {json.dumps(named[:1])}."
        return f"Set the adapter's content to where the text is{example}."


def _outline(value: JSON, depth: int, *, tags: bool = False) -> str:
    match value:
        case dict():
            if depth == 0:
                return "{…}"
            inner = [
                f"{key}: {json.dumps(member)}"
                if tags and key in TAGS and _is_tag(member)
                else f"{key}: {_outline(member, depth - 1)}"
                for key, member in value.items()
            ]
            return f"{{{', '.join(inner)}}}"
        case list():
            return f"[{_outline(value[0], depth - 1)}]" if value and depth else "[]"
        case str():
            return "string"
        case bool() | None:
            return encode_json(value).decode()
    return "number"


def _is_tag(value: JSON) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 40 and value.isprintable() and " " not in value


def _longest_text(value: JSON) -> tuple[int, str]:
    """Return the length of the longest string in a payload, and an expression for its place."""
    if not isinstance(value, dict):
        return 0, ""
    best = max(_strings(value, "", 4), default=(0, ""))
    tag = next((key for key in TAGS if _is_tag(value.get(key))), None)
    if tag is None or not best[1]:
        return best
    return best[0], f"{tag} == '{value[tag]}' && {best[1]} || null"


def _strings(value: JSON, path: str, depth: int) -> list[tuple[int, str]]:
    if isinstance(value, str):
        return [] if _NO_TEXT.search(path) else [(len(value), path)]
    if not isinstance(value, dict) or not depth:
        return []
    prefix = path + "." if path else ""
    return [
        found
        for key, member in value.items()
        for found in _strings(member, prefix + (key if _NAME.fullmatch(key) else json.dumps(key)), depth - 1)
    ]
