"""Hostile shapes: JSON that is cheap to send and dear to decode, to merge or to hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

#: Python's hash of an integer is its remainder by this.
_MODULUS = 2**61 - 1


@dataclass(frozen=True)
class Shape:
    """One shape.

    ``make`` returns about so many bytes of it; ``to`` is who is sent them: the proxy by an upstream (of chat
    completions or Responses), by a client, or an adapter by its service or by a client.
    """

    name: str
    to: Literal["chat", "responses", "client", "service", "adapter client"]
    make: Callable[[int], bytes]


def _event(inner: bytes) -> bytes:
    return b"data: %b\n\n" % inner


def _stream(before: bytes, each: bytes, after: bytes, done: bytes = b"[DONE]") -> Callable[[int], bytes]:
    """Return the maker of a stream whose one large event repeats `each`, which may hold a ``%d``."""

    def make(size: int) -> bytes:
        count = size // (len(each) + 6 * each.count(b"%d"))
        parts = [each % number for number in range(count)] if b"%d" in each else [each] * count
        return _event(before + b",".join(parts) + after) + _event(done)

    return make


def _collisions(size: int) -> bytes:
    entries = [b'{"index":%d}' % (number * _MODULUS) for number in range(min(size // 32, 20_000))]
    return _event(b'{"choices":[{"delta":{"tool_calls":[' + b",".join(entries) + b"]}}]}") + _event(b"[DONE]")


def _many(each: bytes) -> Callable[[int], bytes]:
    return lambda size: each * (size // len(each)) + _event(b"[DONE]")


def _request(each: bytes) -> Callable[[int], bytes]:
    messages = b'{"model":"m","messages":[{"role":"user","content":"x"}],"a":[%b]}'
    return lambda size: messages % b",".join([each] * (size // (len(each) + 1)))


def _members(size: int) -> bytes:
    members = [b'"%x":1' % number for number in range(size // 11)]
    return b'{"model":"m","messages":[],' + b",".join(members) + b"}"


def _message(each: bytes) -> Callable[[int], bytes]:
    call = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}'
    return lambda size: call % (each * ((size - len(call)) // len(each)))


def _messages(size: int) -> bytes:
    each = b'{"role":"user","content":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}'
    return b'{"model":"m","messages":[%b]}' % b",".join([each] * (size // (len(each) + 1) - 1))


#: Large requests, which pass, but for the last one.
REQUESTS = (
    Shape("one text in a request", "client", _message(b"x")),
    Shape("escapes in a request", "client", _message(b'\\"')),
    Shape("objects in a request", "client", _messages),
)
SHAPES = (
    Shape("empty choices in one event", "chat", _stream(b'{"choices":[', b"{}", b"]}")),
    Shape("empty objects in a delta", "chat", _stream(b'{"choices":[{"delta":{"a":[', b"{}", b"]}}]}")),
    Shape("empty arrays in a delta", "chat", _stream(b'{"choices":[{"delta":{"a":[', b"[]", b"]}}]}")),
    Shape(
        "tool calls in one event",
        "chat",
        _stream(b'{"choices":[{"delta":{"tool_calls":[', b'{"index":%d}', b"]}}]}"),
    ),
    Shape("members of a delta", "chat", _stream(b'{"choices":[{"delta":{', b'"%d":[]', b"}}]}")),
    Shape("members of a chunk", "chat", _stream(b'{"choices":[],', b'"%d":{}', b"}")),
    Shape("indices with one hash", "chat", _collisions),
    Shape("empty events", "chat", _many(b"data:\n\n")),
    Shape(
        "small events that add up",
        "chat",
        _many(_event(b'{"choices":[{"delta":{"a":[' + b"{}," * 40 + b"{}]}}]}")),
    ),
    Shape(
        "members of an event",
        "responses",
        _stream(b'{"type":"response.completed","response":{},', b'"%d":1', b"}"),
    ),
    Shape("members of a request", "client", _members),
    Shape("arrays in a request, and a lone surrogate", "client", _request(b'[],["\\ud800"]')),
    Shape("arrays in a request", "adapter client", _request(b"[]")),
    Shape("texts in a payload", "service", _stream(b"[", b'"a"', b"]")),
    Shape("objects in a payload", "service", _stream(b"[", b"{}", b"]")),
)
