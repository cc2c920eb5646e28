"""Rolling restarts: two instances behind a real load balancer are restarted, and no client notices."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater

from heavy_tests.fronts import Pair
from tests.support.loopback import reactor
from tests.support.payloads import CHAT
from tests.support.wire import Message, Stream, read_response, send_request

CLIENTS = 12
REQUESTS = 1000
#: Between the restarts.
PAUSE_SECONDS = 5.0
#: Streams take about 0.4 s, so that some are under way at every moment.
HEADERS = [("X-Mock-Pace", "0.01"), ("X-Mock-Words", "20")]


def text_of(answer: Message, *, streams: bool) -> str:
    """Return the text of a response, or nothing if it is not what was asked for."""
    try:
        if not streams:
            return str(answer.json()["choices"][0]["message"]["content"])
        *events, last = re.findall(rb"data: (.*)\n\n", answer.body)
        choices = [choice for event in events for choice in json.loads(event)["choices"]]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        return text if last == b"[DONE]" else ""
    except (ValueError, LookupError):
        return ""


class RollingHAProxyTests(Pair):
    """HAProxy, whose checks notice an instance that stops after 6 seconds. It sends nothing twice."""

    front = "haproxy"
    changes: Sequence[tuple[str, str]] = (
        ("option redispatch", "no option redispatch"),
        ("retries 3", "retries 0"),
    )
    config = {"drainDelaySeconds": 8, "shutdownGraceSeconds": 60}
    #: Seconds between two SIGHUPs to each instance.
    storm: float | None = None

    async def test_rolling(self) -> None:
        """A thousand calls and streams, while each instance is restarted: a thousand right answers."""
        await self.begin(await self.mock())
        self.done = 0
        self.wrong: list[str] = []
        self.over = False
        running = [Deferred.fromCoroutine(self.client_calls(number)) for number in range(CLIENTS)]
        storm = LoopingCall(self.hang_up)
        if self.storm is not None:
            storm.start(self.storm)
        await deferLater(reactor, 2)
        for number in range(2):
            self.instances[number].signal("TERM")
            began = reactor.seconds()
            await self.instances[number].ended()
            print(f"stopped in {reactor.seconds() - began:.1f} s")
            self.assertNotIn("Traceback", self.instances[number].output)
            self.instances[number] = self.start(number)
            await self.listens(number)
            await deferLater(reactor, PAUSE_SECONDS)
        self.over = True
        await gatherResults(running)
        if storm.running:
            storm.stop()
        print(f"{self.done} answers, {len(self.wrong)} of them wrong")
        told = [line for line in self.balancer.output.splitlines() if "onnection refused" not in line]
        self.assertEqual(self.wrong, [], "\n".join(told[-10:]))
        self.assertGreaterEqual(self.done, REQUESTS)

    def hang_up(self) -> None:
        """Let both instances read their configuration again."""
        for process in self.instances:
            if process.status is None and "listening on" in process.output:
                process.signal("HUP")

    async def expected(self, body: object) -> str:
        """Return what the mock answers to a call, always."""
        port = int(self.upstream_url.rpartition(":")[2])
        return text_of(await self.request(port, "POST", CHAT, body, HEADERS), streams=False)

    async def client_calls(self, number: int) -> None:
        """Make calls and streams in turn, each client on a kept connection or on new ones."""
        stream: Stream | None = None
        body: dict[str, Any] = {
            "model": "m",
            "messages": [{"role": "user", "content": f"client {number}"}],
        }
        expected = await self.expected(body)
        while not self.over or self.done < REQUESTS:
            streams = bool(self.done % 2)
            if stream is None or stream.lost is not None:
                stream = await self.client(self.front_port)
            try:
                send_request(stream, "POST", CHAT, {**body, "stream": streams}, HEADERS)
                answer = await read_response(stream)
            except EOFError as error:
                self.wrong.append(f"{self.done}: {error}")
                stream = None
                self.done += 1
                continue
            self.done += 1
            if answer.status != 200 or not answer.complete or text_of(answer, streams=streams) != expected:
                self.wrong.append(f"{self.done}: {answer.line} {answer.headers} {answer.body[:300]!r}")
            if number % 2 or answer.get("connection") == "close":
                stream.close()
                stream = None


class RollingNginxTests(RollingHAProxyTests):
    """nginx, which does not look at ``/readyz``."""

    front = "nginx"
    changes = ()


class RollingCaddyTests(RollingHAProxyTests):
    """Caddy, whose checks are as often as HAProxy's.

    Without a buffer, Caddy itself cuts a stream now and then while it still reads the request of it
    (caddyserver/caddy#5431).
    """

    front = "caddy"
    changes = (("flush_interval -1", "flush_interval -1\n\t\tbuffer_requests"),)


class StormHAProxyTests(RollingHAProxyTests):
    """HAProxy and instances with two workers, which read their configuration again all the time."""

    workers = 2
    storm = 0.3


class StormNginxTests(RollingNginxTests):
    """nginx and such instances."""

    workers = 2
    storm = 0.3
