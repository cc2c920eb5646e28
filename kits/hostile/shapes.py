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


def _long(before: bytes, each: bytes, after: bytes, end: bytes = b"\n\n") -> Callable[[int], bytes]:
    """Return the maker of a stream whose one event is a long text, or has so many values."""

    def make(size: int) -> bytes:
        room = size - len(before) - len(after) - 8
        return b"data: " + before + each * (room // len(each)) + after + end

    return make


_TEXT, _TEXT_END = b'{"choices":[{"delta":{"content":"', b'"},"finish_reason":"stop"}]}'
_COMPLETED, _COMPLETED_END = b'{"type":"response.completed","response":{"id":"r","output":[],"x":', b"}}"
_FLOATS = b'{"choices":[{"delta":{"content":"x"},"logprobs":{"content":['

#: Single events just below `maxEventBytes`.
EVENTS = (
    Shape("one text", "chat", _long(_TEXT, b"x", _TEXT_END)),
    Shape("no UTF-8 in a text", "chat", _long(_TEXT, b"\xff", _TEXT_END)),
    Shape("no UTF-8 in an event that does not end", "chat", _long(_TEXT, b"\xff", _TEXT_END, b"")),
    Shape("commas and quotes in a text", "chat", _long(_TEXT, b',,,,,,,\\"', _TEXT_END)),
    Shape("a lone surrogate behind Chinese", "chat", _long(_TEXT, "\u8a9e".encode(), b"\\ud800" + _TEXT_END)),
    Shape(
        "long numbers, and NaN",
        "chat",
        _long(_FLOATS, b"-0.1234567890123456789012345678e-5,", b'NaN]},"finish_reason":"stop"}]}'),
    ),
    Shape("empty lists in an event that does not end", "chat", _long(b'{"choices":[', b"[],", b"", b"")),
    Shape(
        "a lone surrogate in a Response",
        "responses",
        _long(_COMPLETED + b'"', b"x", b'\\ud800"' + _COMPLETED_END),
    ),
    Shape(
        "long numbers in a Response, and NaN",
        "responses",
        _long(_COMPLETED + b"[", b"-0.1234567890123456789012345678e-5,", b"NaN]" + _COMPLETED_END),
    ),
    Shape(
        "a long error", "responses", _long(b'{"type":"error","code":"server_error","message":"', b"x", b'"}')
    ),
    Shape("one text in a payload", "service", _long(b'{"text":"', b"x", b'"}')),
    Shape("no UTF-8 in a payload", "service", _long(b'{"text":"', b"\xff", b'"}')),
    Shape("empty lists in JSON in a string", "service", _long(b'{"data":"[', b"[],", b'1]"}')),
    Shape(
        "a lone surrogate in JSON in a string", "service", _long(b'{"data":"[\\"', b"x", b'\\\\ud800\\"]"}')
    ),
)
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
