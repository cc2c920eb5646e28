"""Calls of real SDKs: what they ask, where the programs for Node are, and what an upstream streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.payloads import HELLO, event
from tests.support.wire import Message

CLIENTS = Path(__file__).parent / "clients"
MESSAGES: Any = [{"role": "user", "content": "hi"}]
_MESSAGE = {
    "type": "message",
    "id": "msg",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
}
_RESPONSE = {
    "id": "r",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "completed",
    "output": [_MESSAGE],
    "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
}


def whole_stream(request: Message) -> bytes:
    """Return a whole stream that says "Hello", of the API that is asked."""
    if request.target.endswith("/responses"):
        return event({"type": "response.completed", "response": _RESPONSE})
    return HELLO


def check_clients() -> None:
    """Fail unless the SDKs for Node are installed."""
    if not (CLIENTS / "node_modules").is_dir():
        raise AssertionError("the clients are missing: make test-heavy installs them")
