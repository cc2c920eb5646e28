"""The items of a Realtime session: what they say, and what they cost."""

from __future__ import annotations

from stream_proxy.mock.text import Heard, content_text
from stream_proxy.mock.wire import JSONObject


def item_text(item: JSONObject) -> str:
    """What it says: text, the transcript of audio, a tool's arguments or result."""
    content = item.get("content")
    if isinstance(content, list):
        spoken = (
            part if part.get("text") is not None else {"text": part.get("transcript")}
            for part in content
            if isinstance(part, dict)
        )
        return content_text(list(spoken))
    return str(item.get("output", item.get("arguments", "")))


def heard(items: list[JSONObject]) -> Heard:
    """The end of the conversation."""
    if items and items[-1].get("type") == "function_call_output":
        return Heard(item_text(items[-1]), from_tool=True)
    return Heard(next((item_text(item) for item in reversed(items) if item.get("role") == "user"), ""))


def usage(prompt: int, answer: int) -> JSONObject:
    """The ``usage`` of a response that took so many tokens."""
    return {
        "total_tokens": prompt + answer,
        "input_tokens": prompt,
        "output_tokens": answer,
        "input_token_details": {
            "text_tokens": prompt,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": 0,
            "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": answer, "audio_tokens": 0},
    }
