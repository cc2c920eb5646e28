"""Decisions drawn from a fuzzer's bytes, so that mutations change the structure and not only the spelling."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")
# Longer inputs are not also read one byte at a time.
_BYTEWISE = 600

#: Keys that one parser or another interprets.
KEYS = (
    *("id", "object", "created", "model", "usage", "choices", "index", "delta", "message", "logprobs"),
    *("content", "error", "code", "status", "finish_reason", "tool_calls", "function", "name", "arguments"),
    *("type", "response", "output", "item", "output_index", "content_index", "text", "item_id", "role"),
    *("reasoning_content", "refusal", "audio", "data", "n", "stream", "stream_options", "include_usage"),
    *("background", "format", "messages", "obfuscation", "detail", "answer", "event", "done", "parts", "id"),
)
_WORDS = (
    *("", "a", "b", "stop", "length", "error", "assistant", "\ud83d", "\ude00", "é😀", "x\r\n", "[DONE]"),
    *("response.completed", "response.failed", "response.output_item.done", "response.output_text.done"),
    *("function", "text", "pcm16", "rate_limit_exceeded", "429", '{"text": "in"}', "\x00", "\u2028", "m"),
)
_NUMBERS = (-1, 0, 1, 2, 3, 429, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"))


class Source:
    """A reader of `data` from its beginning; after the end it returns zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """The number of unread bytes."""
        return len(self._data) - self._at

    def number(self, below: int) -> int:
        """Return a number from 0 up to, but not including, `below`."""
        size = 1 if below <= 256 else 2
        taken = self._data[self._at : self._at + size]
        self._at = min(self._at + size, len(self._data))
        return int.from_bytes(taken, "big") % below

    def pick(self, options: Sequence[_T]) -> _T:
        """Return one of these."""
        return options[self.number(len(options))]

    def rest(self) -> bytes:
        """Return all unread bytes."""
        at, self._at = self._at, len(self._data)
        return self._data[at:]

    def reads(self, data: bytes | None = None) -> list[bytes]:
        """Return `data`, or the unread bytes, cut as a network might."""
        chance = random.Random(self.number(65536))
        whole = self.rest() if data is None else data
        if len(whole) <= _BYTEWISE and chance.random() < 0.25:
            return [bytes([byte]) for byte in whole]
        count = chance.randrange(1, 9)
        cuts = sorted(chance.randrange(len(whole) + 1) for _ in range(count))
        return [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    def text(self) -> str:
        """Return a word, or some bytes decoded as text."""
        if self.number(4):
            return self.pick(_WORDS)
        taken = self._data[self._at : self._at + self.number(24)]
        self._at = min(self._at + len(taken), len(self._data))
        return taken.decode("utf-8", "replace")

    def value(self, keys: Sequence[str] = KEYS, depth: int = 6) -> Any:
        """Return a JSON value, including those that only `json` accepts."""
        kind = self.number(10) if self.left and depth else 0
        if kind == 0:
            return None
        if kind == 1:
            return bool(self.number(2))
        if kind == 2:
            return self.pick(_NUMBERS)
        if kind <= 4:
            return self.text()
        if kind <= 6:
            return [self.value(keys, depth - 1) for _ in range(self.number(4))]
        return self.object(keys, depth)

    def object(self, keys: Sequence[str] = KEYS, depth: int = 6) -> dict[str, Any]:
        """Return an object with a few members."""
        return {self.pick(keys): self.value(keys, depth - 1) for _ in range(self.number(6))}

    def spelled(self, value: Any) -> bytes:
        """Return `value` as JSON in one of several spellings."""
        ascii_only, blank = self.pick([(True, True), (True, False), (False, False)])
        separators = (", ", ": ") if blank else (",", ":")
        text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
        return text.encode("utf-8", "replace")

    def events(self) -> bytes:
        """Return an event stream, most of whose data are objects, or just the unread bytes."""
        if not self.number(3):
            return self.rest()
        out = bytearray()
        end = self.pick([b"\n", b"\n", b"\r\n", b"\r"])
        before = b""
        while self.left > 2 and len(out) < 20_000:
            how = self.number(8)
            if how == 0:
                out += self.pick([b": ping", b"event: error", b"id: 1", b"data", b"{}", b"[DONE]"]) + end
            elif how == 1:
                out += b"event: " + self.text().encode("utf-8", "replace") + end
            elif how == 2 and before:  # a run of chunks that differ only in one text
                for _ in range(self.number(12)):
                    inside = json.dumps(self.text())[1:-1].encode()
                    out += b"data: " + before.replace(b'"a"', b'"%b"' % inside) + end + end
            else:
                chunk = self.chunk() if how < 6 else self.value()
                before = self.spelled(chunk)
                out += b"data: " + before + end + end
        if self.number(2):
            out += b"data: [DONE]" + end + end
        return bytes(out)

    def chunk(self) -> dict[str, Any]:
        """Return a chunk of a chat stream, or nearly one."""
        key = self.pick(["content", "content", "reasoning_content", "refusal", "tool_calls", "role"])
        delta: dict[str, Any] = {key: "a"}
        if key == "tool_calls":
            call = {"index": self.number(3), "id": self.pick([None, "", "c", "d"]), "type": "function"}
            delta = {key: [{**call, "function": {"name": self.pick([None, "f"]), "arguments": "a"}}]}
        if not self.number(4):
            delta.update(self.object())
        choice: dict[str, Any] = {"index": self.number(2), "delta": delta}
        choice["finish_reason"] = self.pick([None, None, None, "stop", ""])
        chunk: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}
        if not self.number(4):
            chunk.update(self.object())
        return chunk
