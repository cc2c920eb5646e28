"""Kinds of events, by their names: which carry the text of the answer, and which only speak about it.

Services name their events in the SSE field ``event`` or in the payload's ``type``. A name is known if it is
made of known words, in whatever spelling: ``text-delta``, ``TEXT_MESSAGE_CONTENT``, ``AIMessageChunk``.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

from stream_proxy.lenient_json import JSON, JSONObject

#: Fields in which payloads name their kind.
TAGS = ("type", "event", "event_type", "eventType", "kind", "msg_type")
#: The name of an event without one.
UNNAMED = "message"

_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")
# Words that say that the event carries the answer, and words that may stand beside them.
_ANSWER = frozenset(
    [
        "ai",
        "answer",
        "assistant",
        "bot",
        "chunk",
        "completion",
        "content",
        "data",
        "delta",
        "item",
        "markdown",
        "message",
        "output",
        "reply",
        "response",
        "stream",
        "text",
        "token",
        "tokens",
    ]
)
_BESIDE = frozenset(
    [
        "agent",
        "block",
        "chat",
        "conversation",
        "fast",
        "final",
        "generated",
        "generation",
        "llm",
        "model",
        "new",
        "on",
        "part",
        "partial",
    ]
)
_THOUGHT = frozenset(["reasoning", "think", "thinking", "thought", "thoughts", "summary"])
_THOUGHTS = _THOUGHT - {"summary"}
_END = frozenset(
    [
        "close",
        "closed",
        "complete",
        "completed",
        "done",
        "end",
        "ended",
        "final",
        "finish",
        "finished",
        "incomplete",
        "stop",
        "stopped",
    ]
)
_RUN = frozenset(["run", "session", "turn", "workflow"])
_ERRORS = frozenset(
    ("chat_error", "error", "exception", "fatal", "message_error", "on_error", "run_error", "stream_error")
)
# Errors of these are not the response's: agents go on after them.
_STEPS = frozenset(["debug", "function", "log", "node", "retry", "tool", "tools", "trace"])


class Kind(Enum):
    """What the name of an event says about it."""

    #: Nothing: it has no name.
    UNNAMED = "unnamed"
    ANSWER = "answer"
    REASONING = "reasoning"
    #: The end of the answer; text here repeats it.
    END = "end"
    ERROR = "error"
    #: A step on the way to the answer, such as a tool's.
    STEP = "step"
    UNKNOWN = "unknown"

    @property
    def is_silent(self) -> bool:
        """Whether text in such an event is none of the answer."""
        return self in _SILENT


_SILENT = (Kind.END, Kind.STEP, Kind.UNKNOWN)


@lru_cache(maxsize=512)
def kind_of_name(name: str) -> Kind:
    """Return the kind that a name stands for."""
    if len(name) > 100:
        return Kind.UNKNOWN
    words = [word for word in _WORD_ENDS.sub(" ", name).lower().split(" ") if word]
    given = set(words)
    if not given:
        return Kind.UNNAMED
    if "_".join(words) in _ERRORS:
        return Kind.ERROR
    if given & _STEPS:
        return Kind.STEP
    known = _ANSWER | _BESIDE
    if given & _END and given <= known | _END | _THOUGHT | _RUN:
        return Kind.END
    if given & _THOUGHTS and given <= known | _THOUGHT:
        return Kind.REASONING
    if given & _ANSWER and given <= known:
        return Kind.ANSWER
    return Kind.UNKNOWN


def kind_of_event(event: str, payload: JSON = None) -> Kind:
    """Return the kind of an event by its name; one that the payload repeats says nothing beside that."""
    if event == UNNAMED:
        return Kind.UNNAMED
    if isinstance(payload, dict) and any(payload.get(key) == event for key in TAGS[:3]):
        return Kind.UNNAMED
    return kind_of_name(event)


def kind_of_payload(payload: JSONObject) -> Kind:
    """Return the kind of a payload by the names that it has for it; the least telling one counts."""
    if _TAGS.isdisjoint(payload):
        return Kind.UNNAMED
    found = Kind.UNNAMED
    for key in TAGS:
        if isinstance(tag := payload.get(key), str):
            kind = kind_of_name(tag)
            if found is Kind.UNNAMED or _ORDER.index(kind) < _ORDER.index(found):
                found = kind
    return found


_TAGS = frozenset(TAGS)
_ORDER = (Kind.ERROR, Kind.STEP, Kind.UNKNOWN, Kind.END, Kind.REASONING, Kind.ANSWER, Kind.UNNAMED)


def is_delta_name(name: str) -> bool:
    """Report whether a name says that the text is a piece."""
    return any(word in name.lower() for word in ("delta", "token", "chunk"))
