"""Actors: the state that the actions of one client share, and the tally of all clients."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from kits.soak.cases import Case
from kits.soak.client import Connection, Connections, Response, request
from kits.soak.upstream import Lost

_MOST_PROBLEMS = 50


@dataclass
class Tally:
    """The number of actions and their results, over all clients."""

    done: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    stale: int = 0
    picked_up: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    wrong: int = 0

    def problem(self, text: str) -> None:
        """Record a problem."""
        self.wrong += 1
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(text)


@dataclass(frozen=True)
class Ports:
    """The ports on which the proxy listens."""

    proxy: int
    adapter: int


@dataclass
class Actor:
    """One client: its random choices and its kept connections.

    :ivar reached: reports whether the upload with a token has reached the upstream.
    :ivar lost: the calls whose clients leave, as the upstream sees them.
    :ivar replaced: rules are replaced during the run, so that a kept connection may end before it is reused.
    :ivar joins: each retry of a lost call comes to the process that keeps it, which forgets nothing.
    """

    ports: Ports
    tally: Tally
    reached: Callable[[str], bool]
    lost: Lost
    chance: random.Random
    replaced: bool
    joins: bool
    connections: Connections = field(default_factory=Connections)

    async def ask(self, port: int, case: Case, data: bytes, method: str = "POST") -> Response:
        self.tally.faults[case.fault] += 1
        connection = await self.connections.take(port)
        try:
            await connection.send(data)
            response = await connection.response(method)
            if response.head is None and connection.requests > 1 and self.replaced:
                await connection.close()
                connection = await Connection.open(port)
                await connection.send(data)
                response = await connection.response(method)
            self.tally.statuses[response.status] += 1
        finally:
            await self.connections.give_back(port, connection)
        return response

    def some(self, faults: tuple[str, ...]) -> tuple[str, ...]:
        return ("silent",) if self.chance.random() < 0.005 else faults


def call_body(case: Case, **more: object) -> bytes:
    """Return the body of a call; its ``user`` names the case."""
    model = f"m-{case.fault}" if case.fault in ("nousage", "nostream") else "m"
    return json.dumps({"model": model, "user": str(case), **more}).encode()


def chat_request(case: Case, stream: bool | None) -> bytes:
    """Return the bytes of a chat call; ``stream`` is absent if `stream` is ``None``."""
    more = {} if stream is None else {"stream": stream}
    messages = [{"role": "user", "content": "hello"}]
    return request("POST", "/v1/chat/completions", case, call_body(case, messages=messages, **more))
