"""Cases: the content of one request and its fault, known to both the client and the upstream.

Both ends derive all their bytes from the case, so that each response can be checked byte for byte.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Any

TOKEN = re.compile(rb"tk[0-9a-f]{16}")
_SHAPE = re.compile(r"(tk[0-9a-f]{16}) ([a-z0-9]+) (\d+) (\d+)")

#: Faults that any kind of request can have.
COMMON_FAULTS = (
    *("fine", "fine", "fine", "fine", "fine", "drip", "drop", "gzip", "s429", "s500", "huge"),
    *("early", "torn", "reset", "close", "garbage", "badchunk", "badjson", "error", "plain", "br"),
)
#: Faults that last as long as the proxy's time limit, and are therefore rare.
SLOW_FAULTS = ("silent", "stalled")


@dataclass(frozen=True)
class Case:
    """One request: its unique token, its fault, and the number and padding of the pieces of its text."""

    token: str
    fault: str = "fine"
    count: int = 5
    pad: int = 0

    def __str__(self) -> str:
        return f"{self.token} {self.fault} {self.count} {self.pad}"

    @classmethod
    def of(cls, text: str) -> Case:
        """Parse a case.

        :raises ValueError: if `text` is not a case.
        """
        found = _SHAPE.fullmatch(text)
        if found is None:
            raise ValueError(f"no case: {text[:100]!r}")
        return cls(found[1], found[2], int(found[3]), int(found[4]))

    @classmethod
    def draw(cls, chance: random.Random, faults: tuple[str, ...] = COMMON_FAULTS) -> Case:
        """Draw a random case."""
        fault = chance.choice(SLOW_FAULTS if faults is COMMON_FAULTS and chance.random() < 0.01 else faults)
        count, pad = chance.choice([1, 3, 10, 40, 150]), 0
        if fault in ("huge", "toolarge"):
            count, pad = (40, 20_000) if fault == "huge" else (120, 100_000)
        return cls(f"tk{chance.getrandbits(64):016x}", fault, count, pad)

    @property
    def chance(self) -> random.Random:
        """A random generator that is the same at both ends."""
        return random.Random(self.token)

    @property
    def pieces(self) -> list[str]:
        """The text in pieces, each of which contains the token."""
        padding = "x" * self.pad
        return [f"{self.token}.{number} é{padding}" for number in range(self.count)]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    @property
    def usage(self) -> dict[str, int]:
        """The token counts of the call."""
        return {"prompt_tokens": self.count, "completion_tokens": 7, "total_tokens": self.count + 7}

    @property
    def data(self) -> bytes:
        """A binary body of `count` times `pad` bytes."""
        line = f"{self.token} ".encode()
        size = self.count * self.pad
        return (line * (size // len(line) + 1))[:size]

    def error(self) -> dict[str, Any]:
        """Return the error of a failing upstream."""
        return {"message": f"failed for {self.token}", "type": "rate_limit_error", "param": None, "code": 429}


def chat_completion(case: Case) -> dict[str, Any]:
    """Return the completion as a single response."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": case.text},
        "logprobs": None,
        "finish_reason": "stop",
    }
    head = {"id": f"c-{case.token}", "object": "chat.completion", "created": 7, "model": "m"}
    return {**head, "choices": [choice], "usage": case.usage}


def chat_events(case: Case, *, usage: bool) -> list[bytes]:
    """Return the completion as events."""
    head = {"id": f"c-{case.token}", "object": "chat.completion.chunk", "created": 7, "model": "m"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data({**head, "choices": [choice]})

    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"content": piece}) for piece in case.pieces]
    if case.fault == "error":
        return [*events, _data({"error": case.error()})]
    if case.fault == "badjson":
        return [*events, b"data: {oops\n\n", b"data: [DONE]\n\n"]
    events.append(chunk({}, "stop"))
    if usage:
        events.append(_data({**head, "choices": [], "usage": case.usage}))
    return [*events, b"data: [DONE]\n\n"]


def response_object(case: Case) -> dict[str, Any]:
    """Return the Response as a single object."""
    content = [{"type": "output_text", "text": case.text, "annotations": []}]
    item = {"id": f"msg-{case.token}", "type": "message", "role": "assistant", "content": content}
    head = {"id": f"r-{case.token}", "object": "response", "status": "completed", "model": "m"}
    return {**head, "output": [item], "usage": case.usage}


def response_events(case: Case) -> list[bytes]:
    """Return the Response as events."""
    events = [_data({"type": "response.created", "response": {"id": f"r-{case.token}"}}, "response.created")]
    for piece in case.pieces:
        name = "response.output_text.delta"
        events.append(_data({"type": name, "delta": piece}, name))
    if case.fault == "error":
        return [*events, _data({"type": "error", **case.error(), "code": "rate_limit_exceeded"}, "error")]
    name = "response.completed"
    if case.fault == "badjson":
        return [*events, f"event: {name}\ndata: {{oops\n\n".encode()]
    return [*events, _data({"type": name, "response": response_object(case)}, name)]


def service_events(case: Case) -> list[bytes]:
    """Return the events of a service with a format of its own."""
    events = [_data({"seq": number, "data": {"content": piece}}) for number, piece in enumerate(case.pieces)]
    if case.fault == "error":
        return [*events, _data({"error": case.error()})]
    if case.fault == "badjson":
        return [*events, b'data: {"oops\n\n', b"data: [DONE]\n\n"]
    return [*events, b"data: [DONE]\n\n"]


def _data(value: object, event: str | None = None) -> bytes:
    name = f"event: {event}\n" if event is not None else ""
    return f"{name}data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
