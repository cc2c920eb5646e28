"""Workloads of the contestants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

MIB = 2**20
#: The number of words in each prompt, which makes a body of a few hundred bytes, as in short chats.
_PROMPT = "Tell me in a few sentences what a streaming proxy does, and why one would want it. " * 4
_CHAT: Mapping[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": _PROMPT},
    ],
    "temperature": 0.7,
}
#: The number of events in a paced stream: five seconds, or half of that in a quick run.
PACED_RATE, PACED_EVENTS, QUICK_PACED_EVENTS = 30, 150, 75
#: The clients' User-Agent.
KEY = "sk-0123456789abcdef0123456789abcdef0123456789abcdef"
_RESPONSES: Mapping[str, Any] = {"model": "gpt-4o-mini", "input": _PROMPT, "temperature": 0.7}


@dataclass(frozen=True)
class Workload:
    """One thing to measure.

    :ivar kind: what the load generator does: whole requests, echoed WebSocket messages, events of paced
        streams, or connections that are held.
    :ivar leg: how the contestant reaches the upstream.
    :ivar target: the request's target.
    :ivar body: its JSON body.
    :ivar upload: the length of a body of zeros, which replaces `body`.
    :ivar warm: the number of requests in the warm-up, enough to estimate the cost of one.
    :ivar most: the most requests to measure, if they take long and cost little.
    :ivar units: the number of `unit` in one request.
    :ivar groups: other names that select it.
    """

    name: str
    about: str
    kind: Literal["http", "ws", "events", "hold"]
    target: str
    connections: int = 8
    warm: int = 40
    most: int | None = None
    leg: Literal["tcp", "tls"] = "tcp"
    method: str = "POST"
    body: Mapping[str, Any] | None = None
    upload: int = 0
    websocket: bool = False
    size: int = 0
    window: int = 1
    unit: str = "request"
    units: int = 1
    groups: frozenset[str] = frozenset()

    def paced_target(self, events: int) -> str:
        """Return the target of a paced stream with this many events."""
        return self.target.replace("{events}", str(events))


def _convert(name: str, chunks: int, about: str, **more: Any) -> Workload:
    return Workload(name, about, "http", f"/n{chunks}/v1/chat/completions", body=_CHAT, **more)


def _stream(name: str, about: str, **more: Any) -> Workload:
    body = {**_CHAT, "stream": True}
    return Workload(name, about, "http", "/n200/v1/chat/completions", body=body, **more)


def _paced(name: str, about: str, **more: Any) -> Workload:
    return Workload(
        name,
        about,
        "events",
        f"/rate{PACED_RATE}x{{events}}/v1/chat/completions",
        connections=100,
        body={**_CHAT, "stream": True},
        unit="event",
        **more,
    )


def _websocket(name: str, about: str, **more: Any) -> Workload:
    return Workload(
        name,
        about,
        "ws",
        "/v1/realtime?model=gpt-realtime",
        method="GET",
        websocket=True,
        unit="message",
        **more,
    )


_TLS = frozenset({"tls"})
_LINEAR = frozenset({"linear"})
_IDLE = frozenset({"idle"})

WORKLOADS = (
    _convert("convert", 200, "a chat completion out of 200 chunks"),
    _convert("convert-big", 8000, "a chat completion out of 8,000 chunks", connections=4, warm=4),
    replace(
        _convert("convert-paced", 200, "a chat completion out of 200 chunks, one a read"),
        target="/rate200x200/v1/chat/completions",
        connections=16,
        warm=16,
        most=80,
    ),
    Workload(
        "responses",
        "a Response out of 200 deltas",
        "http",
        "/n200/v1/responses",
        body=_RESPONSES,
    ),
    _stream("stream", "a chat stream of 200 chunks, relayed"),
    _paced("stream-paced", "100 chat streams at 30 events a second each"),
    _convert("tls-convert", 200, "convert, from a TLS upstream", leg="tls", groups=_TLS),
    _stream("tls-stream", "stream, from a TLS upstream", leg="tls", groups=_TLS),
    _paced("tls-paced", "stream-paced, from a TLS upstream", leg="tls", groups=_TLS),
    Workload("small", "GET with 13 bytes", "http", "/small", method="GET", connections=16, warm=400),
    Workload("upload", "an upload of 64 MiB", "http", "/upload", connections=2, warm=2, upload=64 * MIB),
    _websocket("ws-text", "64-byte messages, one at a time", size=64, connections=16, warm=2000),
    _websocket("ws-pipe", "64-byte messages, 64 under way", size=64, window=64, connections=4, warm=10000),
    _websocket("ws-bin", "messages of 1 MiB", size=MIB, connections=2, warm=20),
    _convert("linear-100", 100, "100 chunks", unit="chunk", units=100, groups=_LINEAR),
    _convert("linear-1000", 1000, "1,000 chunks", unit="chunk", units=1000, warm=16, groups=_LINEAR),
    _convert(
        "linear-10000",
        10000,
        "10,000 chunks",
        unit="chunk",
        units=10000,
        connections=4,
        warm=4,
        groups=_LINEAR,
    ),
    Workload(
        "idle-stream",
        "1,000 open chat streams",
        "hold",
        "/hold/v1/chat/completions",
        connections=1000,
        body={**_CHAT, "stream": True},
        unit="stream",
        groups=_IDLE,
    ),
    Workload(
        "idle-ws",
        "1,000 open WebSockets",
        "hold",
        "/v1/realtime?model=gpt-realtime",
        method="GET",
        websocket=True,
        connections=1000,
        unit="WebSocket",
        groups=_IDLE,
    ),
)


def chosen_workloads(names: str | None) -> list[Workload]:
    """Return the workloads that a comma-separated list names, by name or group; all without a list.

    :raises SystemExit: if one does not exist.
    """
    if not names:
        return list(WORKLOADS)
    wanted = names.split(",")
    known = {name for workload in WORKLOADS for name in (workload.name, *workload.groups)}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"no such workload: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [one for one in WORKLOADS if one.name in wanted or one.groups.intersection(wanted)]


@dataclass(frozen=True)
class Request:
    """A request as it is sent."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    def wire(self) -> bytes:
        """Return its bytes."""
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def request_of(workload: Workload, target: str, body: Mapping[str, Any] | None, **headers: str) -> Request:
    """Return the request of a workload.

    :param target: its target, as this contestant expects it.
    :param body: its JSON body, likewise.
    :param headers: more headers, with ``_`` for ``-``.
    """
    fields = {
        "Host": "127.0.0.1",
        "User-Agent": "OpenAI/Python 3.54.0",
        "Accept": "application/json",
        "Authorization": f"Bearer {KEY}",
    }
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    data = b""
    if body is not None:
        data = json.dumps(body).encode()
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
    elif workload.upload:
        fields |= {"Content-Type": "application/octet-stream", "Content-Length": str(workload.upload)}
    elif workload.websocket:
        fields |= {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
    return Request(workload.method, target, fields, data)
