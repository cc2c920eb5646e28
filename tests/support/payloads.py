"""OpenAI payloads: the paths and bodies of calls, and the events of chat streams."""

from __future__ import annotations

import json
from typing import Any

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
CHAT_BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
RESPONSES_BODY = {"model": "m", "input": "hi"}


def tool(name: str) -> dict[str, Any]:
    """Return a function tool of the chat API."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def event(data: object, name: str | None = None) -> bytes:
    """Return one server-sent event; data that is not text is encoded as JSON."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def chunk(delta: object, finish: str | None = None, **more: object) -> bytes:
    """Return the event of one chat chunk; `more` are further members of the chunk."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return event({**base, **more})


DONE = b"data: [DONE]\n\n"
HELLO = chunk({"role": "assistant", "content": "Hel"}) + chunk({"content": "lo"}, "stop") + DONE
