"""Transcripts' form, and helpers that cut their bodies into flushes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

EVENTS = "text/event-stream"


@dataclass(frozen=True)
class Transcript:
    """One response of the service that ``examples/adapter/{example}.json`` describes."""

    name: str
    example: str
    #: The model in the request.
    model: str
    media: str
    #: The response body, cut where the service flushes it.
    flushes: tuple[bytes, ...]
    #: The number of flushes before the first with text, reasoning or a tool call.
    silent: int
    text: str | None
    usage: dict[str, Any] | None
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = field(default=())
    finish: str = "stop"
    #: The text that takes the place of all before it: a stream ends with an error, another call gets this.
    replacement: str | None = None
    #: Whether the service marks the end of its response explicitly.
    announced: bool = True

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.flushes)


def events(text: str) -> tuple[bytes, ...]:
    """Return each event, with its blank line."""
    return tuple(found[0].encode() for found in re.finditer(r".+?\n\n", text, re.DOTALL))


def lines(text: str) -> tuple[bytes, ...]:
    """Return each line, with its line end."""
    return tuple(line.encode() for line in text.splitlines(keepends=True))


def call(identity: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a tool call as the chat API has it."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def sse(*sent: Any, between: str = " ") -> tuple[bytes, ...]:
    """Return events out of payloads, or of names and payloads; all but strings are written as JSON."""
    flushes = []
    for each in sent:
        name, payload = each if isinstance(each, tuple) else (None, each)
        data = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
        head = f"event:{between}{name}\n" if name else ""
        lines = "".join(f"data:{between}{line}\n" for line in data.split("\n"))
        flushes.append(f"{head}{lines}\n".encode())
    return tuple(flushes)


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Return OpenAI's usage."""
    total = prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
