"""Costs of long adapted responses, which grow with their length and no faster."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.dialect import Dialect
from tests.adapter.test_flow import STREAM, AdapterTestCase, says

MEBIBYTE = 2**20


def event(payload: object) -> bytes:
    """Return an event."""
    return b"data: %b\n\n" % json.dumps(payload).encode()


def call(number: int, **more: object) -> dict[str, object]:
    """Return a piece of a tool call."""
    return {"choices": [{"delta": {"tool_calls": [{**more, "function": {"arguments": f"{number}"}}]}}]}


SHAPES: dict[str, Callable[[int], bytes]] = {
    "tiny deltas": lambda size: event({"text": "a"}) * (size // 20),
    "tiny deltas that a service may also send whole": lambda size: (
        event({"event": "token", "data": {"id": "m", "chunk": "a"}}) * (size // 60)
    ),
    "a list of texts": lambda size: b"data: [" + b'"a",' * (size // 4) + b'"b"]\n\n',
    "a list of messages with tool calls": lambda size: (
        b"data: [" + b",".join([b'{"tool_calls":[{}]}'] * (size // 20)) + b',"b"]\n\n'
    ),
    "a growing tool call": lambda size: (
        event(call(0, index=0, id="c")) + event(call(1, index=0)) * (size // 90)
    ),
    "tool calls with ids": lambda size: b"".join(
        event(call(number, id=f"c{number}")) for number in range(size // 100)
    ),
    "parts of one message": lambda size: event({"content": [{"text": "a"}] * (size // 14)}),
    "parts of Gemini's": lambda size: event(
        {"candidates": [{"content": {"parts": [{"text": "a"}] * (size // 14)}}]}
    ),
}


def cost(body: bytes, *, stream: bool) -> float:
    """Return the seconds of CPU that the translation of a body takes."""
    dialect = Dialect("http://service", AdapterConfig())
    translation = dialect.translation(
        b"text/event-stream",
        ("c", 1, "m"),
        include_usage=True,
        max_bytes=64 * MEBIBYTE,
        stream=stream,
        max_values=10**9,  # the bound on values would end the hostile shapes first
    )
    begun = time.thread_time()
    for start in range(0, len(body), 65536):
        for _ in translation.feed(body[start : start + 65536]):
            pass
    for _ in translation.feed(b"data: [DONE]\n\n"):
        pass
    return time.thread_time() - begun


class LinearTests(SynchronousTestCase):
    """Responses of half a MiB and of 2 MiB."""

    def test_linear(self) -> None:
        """Four times the length costs about four times the time, where sixteen would be quadratic."""
        for name, make in SHAPES.items():
            for stream in (True, False):
                small, large = (cost(make(size * MEBIBYTE // 2), stream=stream) for size in (1, 4))
                self.assertLess(large, 8 * small + 0.5, (name, stream))


class BombTests(AdapterTestCase):
    """Decompression bombs, with the default limits."""

    async def test_bomb(self) -> None:
        """A million events in 9 kB are an error, and are not forwarded."""
        bomb = gzip.compress(b"data: 1\n\n" * 1_000_000)
        script = says(bomb, 200, "text/event-stream", ("Content-Encoding", "gzip"))
        answer = await self.answer(script, STREAM)
        self.assertLess(len(answer.body), 64 * MEBIBYTE)
        self.assertNotIn(b"[DONE]", answer.body)
        await self.fails(script, 502)
