"""Finish reasons in the words of many services, and OpenAI's for them."""

from __future__ import annotations

from stream_proxy.lenient_json import JSON

_FINISHES = {
    "length": (
        "length",
        "max_length",
        "max_output_tokens",
        "max_tokens",
        "model_context_window_exceeded",
        "model_length",
        "token_limit",
    ),
    "tool_calls": ("tool_calls", "tool_use", "function_call", "tool_call"),
    "content_filter": (
        "blocklist",
        "content_filter",
        "prohibited_content",
        "recitation",
        "refusal",
        "safety",
        "sensitive",
        "spii",
    ),
}
_STOPS = frozenset(
    [
        "complete",
        "completed",
        "end_turn",
        "eos",
        "eos_token",
        "finish",
        "finished",
        "normal",
        "stop",
        "stop_sequence",
    ]
)
_OPENAI_FINISHES = {name: finish for finish, names in _FINISHES.items() for name in names}
_NO_FINISH = ("", "null", "none", "finish_reason_unspecified")


def openai_finish(reason: JSON) -> str | None:
    """Return OpenAI's finish reason for a service's word; ``"stop"`` for a word that is not known."""
    if reason is None or reason is False:
        return None
    word = reason.strip().lower() if isinstance(reason, str) else "stop"
    return None if word in _NO_FINISH else _OPENAI_FINISHES.get(word, "stop")


def is_finish(reason: JSON) -> bool:
    """Report whether a word is a finish reason that some service has."""
    word = reason.strip().lower() if isinstance(reason, str) else ""
    return word in _OPENAI_FINISHES or word in _STOPS
