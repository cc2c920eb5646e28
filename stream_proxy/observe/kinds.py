"""Kinds of APIs, told apart by the path of a request. Sans-I/O."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

APIKind = Literal["chat", "responses", "completions", "messages", "gemini", "other"]

# The longer of two endings first.
_ENDINGS: tuple[tuple[bytes, APIKind], ...] = (
    (b"/chat/completions", "chat"),
    (b"/completions", "completions"),
    (b"/responses", "responses"),
    (b"/messages", "messages"),
    (b":generateContent", "gemini"),
    (b":streamGenerateContent", "gemini"),
)


@lru_cache(maxsize=256)
def api_kind(path: bytes) -> APIKind:
    """Return the kind of API that a path without its query belongs to."""
    trimmed = path.rstrip(b"/")
    return next((kind for ending, kind in _ENDINGS if trimmed.endswith(ending)), "other")
