"""Upstreams and clients at fault: the four flows that meet them, and what comes of it.

Every case runs on a :class:`Stage` of its own, and after it the process has no descriptor, timer, reader or
writer more than before.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import Clock

from stream_proxy import Limits, ProxyResource, ProxySite
from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.request_log import RequestLog
from stream_proxy.upstream.pool import UpstreamPool
from tests.support.loopback import LoopbackTestCase, Script, Upstream, reactor, turns
from tests.support.payloads import CHAT
from tests.support.strict import read_responses
from tests.support.wire import Stream, all_gone, event_stream_head, read_request

MODEL = "gpt-3.5-turbo"
FIRST = b'data: {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}\n\n'
REST = b'data: {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
#: The body of a good answer.
BODY = FIRST + REST + DONE
HEAD = event_stream_head()


def chunked(*pieces: bytes) -> bytes:
    """Chunks of a body, without the last one."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def text_chunk(text: bytes, finish: bytes = b"null") -> bytes:
    """An event with this in its JSON string."""
    return b'data: {"choices": [{"index": 0, "delta": {"content": "%b"}, "finish_reason": %b}]}\n\n' % (
        text,
        finish,
    )


#: A good answer.
ANSWER = HEAD + chunked(FIRST, REST, DONE) + b"0\r\n\r\n"
#: One of which some text has come.
BEGUN = HEAD + chunked(FIRST)


@dataclass(frozen=True)
class Flow:
    """One way through the proxy: which resource takes the request, and what the body asks for."""

    name: str
    resource: Callable[..., Any]
    stream: bool

    def body(self, padding: int = 0) -> bytes:
        """A request's body."""
        messages = [{"role": "user", "content": "x" * padding}]
        return json.dumps({"model": MODEL, "stream": self.stream, "messages": messages}).encode()

    def request(self, padding: int = 0, close: bool = True) -> bytes:
        """A whole request; after its answer the connection ends, unless it is to stay."""
        body = self.body(padding)
        return self.head(len(body), close=close) + body

    def head(self, length: int, close: bool = True) -> bytes:
        """The head of one."""
        fields = ["Host: x", "Content-Type: application/json", f"Content-Length: {length}"]
        if close:
            fields.append("Connection: close")
        return "\r\n".join([f"POST {CHAT} HTTP/1.1", *fields, "", ""]).encode()

    def outcome(self, data: bytes) -> str:
        """What a client got, whose connection has ended.

        ``complete``, ``broken``, ``error chunk``, ``nothing``, an error's status and type, or what is wrong.
        """
        if not data:
            return "nothing"
        answers = read_responses(data, closed=True)
        if len(answers) != 1:
            return f"{len(answers)} answers"
        [answer] = answers
        if not answer.complete:
            return "broken" if answer.status == 200 else f"broken {answer.status}"
        if answer.status != 200:
            error = json.loads(answer.body)["error"]
            return f"{answer.status} {error['type']}"
        return self._meaning(answer.body)

    def _meaning(self, body: bytes) -> str:
        if self.resource is ProxyResource and self.stream:
            text = body.decode("latin-1")
            return "complete" if body == BODY else f"a body of its own: {text!r}"
        if not self.stream:
            text = json.loads(body)["choices"][0]["message"]["content"]
            return "complete" if text == "Hello" else f"another text: {text!r}"
        chunks = [block.removeprefix(b"data: ") for block in body.split(b"\n\n")[:-1]]
        if b'"error"' in chunks[-1]:
            return "error chunk"
        text = "".join(
            choice["delta"].get("content") or ""
            for chunk in chunks[:-1]
            for choice in json.loads(chunk)["choices"]
        )
        return "complete" if text == "Hello" and chunks[-1] == b"[DONE]" else f"another text: {text!r}"


CONVERT = Flow("convert", ProxyResource, stream=False)
RELAY = Flow("relay", ProxyResource, stream=True)
ADAPT = Flow("adapter", AdapterResource, stream=False)
ADAPT_STREAM = Flow("adapter's stream", AdapterResource, stream=True)
FLOWS = (CONVERT, RELAY, ADAPT, ADAPT_STREAM)

#: What each of the flows makes of a fault, in their order; ``|`` where timing may decide.
Outcomes = tuple[str, str, str, str]
E502, E504 = "502 upstream_error", "504 upstream_timeout"
NO_ANSWER: Outcomes = (E502, E502, E502, E502)
TIMED_OUT: Outcomes = (E504, E504, E504, E504)
#: After the head, before any text.
CUT_AT_ONCE: Outcomes = (E502, "broken", E502, E502)
SILENT_AT_ONCE: Outcomes = (E504, "broken", E504, E504)
#: After some text.
CUT: Outcomes = (E502, "broken", E502, "error chunk")
SILENT: Outcomes = (E504, "broken", E504, "error chunk")
#: A reset may destroy what came before it.
RESET: Outcomes = (E502, f"broken|{E502}", E502, f"error chunk|{E502}")
COMPLETE: Outcomes = ("complete", "complete", "complete", "complete")


@dataclass(frozen=True)
class Fault:
    """What an upstream does, and what comes of it."""

    name: str
    script: Script
    outcomes: Outcomes


def says(data: bytes, end: Callable[[Stream], object] = Stream.close, reading: bool = True) -> Script:
    """An upstream that reads a request, says this, and then ends so."""

    async def script(stream: Stream) -> None:
        if reading:
            await read_request(stream)
        if data:
            stream.write(data)
        end(stream)
        await stream.rest()

    return script


def half_close(stream: Stream) -> None:
    """Send no more."""
    stream.transport.loseWriteConnection()


def stay(stream: Stream) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Held:
    """What the process holds."""

    descriptors: frozenset[str]
    calls: frozenset[Any]
    selectables: frozenset[Any]

    @classmethod
    def now(cls) -> Held:
        """At this moment."""
        links = []
        for name in os.listdir("/proc/self/fd"):
            try:
                link = os.readlink(f"/proc/self/fd/{name}")
            except OSError:  # the listing's own
                continue
            if link != os.devnull:  # Twisted keeps one in reserve
                links.append(f"{name} {link}")
        selectables = [*reactor.getReaders(), *reactor.getWriters()]
        return cls(frozenset(links), frozenset(reactor.getDelayedCalls()), frozenset(selectables))

    def more_than(self, before: Held) -> list[str]:
        """What is held now and was not."""
        found: list[object] = [
            *(self.descriptors - before.descriptors),
            *(self.calls - before.calls),
            *(self.selectables - before.selectables),
        ]
        return [str(one) for one in found]


class Stage:
    """A proxy before one upstream.

    :param flow: whose resource it has.
    """

    def __init__(self, flow: Flow, upstream: Upstream | None, url: str, limits: Limits | None) -> None:
        self.flow = flow
        self.upstream = upstream
        self.pool = UpstreamPool(reactor)
        self.log: list[Any] = []
        log = RequestLog(observer=cast(Any, self.log.append))
        self.resource: Any = flow.resource(url, reactor=reactor, limits=limits, pool=self.pool, log=log)
        self.site = ProxySite(self.resource, reactor=reactor)
        self._port: Any = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.port = int(self._port.getHost().port)

    def manual_time(self) -> Clock:
        """Let time pass for the flows only when the test says so."""
        clock = self.resource.clock = Clock()
        return clock

    @property
    def bugs(self) -> list[str]:
        """What the proxy takes for faults of its own."""
        return [str(event["log_failure"]) for event in self.log if "log_failure" in event]

    async def close(self) -> None:
        """End it; nothing but what leaked is left."""
        await maybeDeferred(self._port.stopListening)
        await self.site.drain(0)
        await self.pool.closeCachedConnections()


class FaultTestCase(LoopbackTestCase):
    """Cases that leave nothing behind."""

    timeout = 60

    @asynccontextmanager
    async def stage(
        self, flow: Flow, script: Script | None, *, scheme: str = "http", limits: Limits | None = None
    ) -> AsyncIterator[Stage]:
        """A proxy before an upstream with this script, none if it is ``None``; it is gone after that."""
        await turns(2)  # trial starts a test before the reactor runs
        before = Held.now()
        upstream = Upstream(script or says(b""), scheme=scheme)
        listening = reactor.listenTCP(0, upstream.factory(), interface="127.0.0.1")
        upstream.port = int(listening.getHost().port)
        if script is None:
            await maybeDeferred(listening.stopListening)
        stage = Stage(flow, upstream, upstream.url, limits)
        self._streams: list[Stream] = []
        try:
            yield stage
        finally:
            for stream in self._streams:
                if stream.lost is None:
                    stream.abort()
            await all_gone(self._streams)
            left = await eventually(lambda: not stage.site.channels)
            # Nothing but what is kept for reuse may be left of the connections to the upstream.
            kept = sum(map(len, stage.pool._connections.values()))
            await stage.close()
            await maybeDeferred(listening.stopListening)
            ended = await eventually(lambda: all(one.lost is not None for one in upstream.connections))
        self.assertTrue(left, "a client's connection outlived it")
        self.assertTrue(ended, "a connection to the upstream was not ended")
        self.assertLessEqual(kept, len(upstream.connections))
        self.assertEqual([str(failure) for failure in upstream.failures], [])
        self.assertEqual(stage.bugs, [])
        await eventually(lambda: not Held.now().more_than(before))
        self.assertEqual(Held.now().more_than(before), [])

    async def client(self, port: int) -> Stream:
        """A raw connection, for the case under way."""
        stream = Stream()
        connected: Deferred[Stream] = Deferred()
        factory: Any = _Connects(stream, connected)
        reactor.connectTCP("127.0.0.1", port, factory)
        await connected
        self._streams.append(stream)
        return stream

    async def asked(self, stage: Stage, padding: int = 0) -> str:
        """What comes of a request."""
        client = await self.client(stage.port)
        client.write(stage.flow.request(padding))
        return stage.flow.outcome(await client.rest())

    async def check(self, faults: Iterable[Fault], flows: Iterable[Flow] = FLOWS) -> None:
        """Every flow makes of every fault what is written there."""
        wrong = []
        for fault in faults:
            for flow in flows:
                expected = fault.outcomes[FLOWS.index(flow)]
                async with self.stage(flow, fault.script) as stage:
                    outcome = await self.asked(stage)
                if outcome not in expected.split("|"):
                    wrong.append(f"{fault.name}, {flow.name}: {outcome}, not {expected}")
        self.assertEqual(wrong, [])

    async def offsets(
        self, flow: Flow, answer: bytes, end: Callable[[Stream], object] = Stream.close
    ) -> list[str]:
        """What comes of `answer` when it ends so after 0, 1, 2… of its bytes; many of these at once."""

        async def script(stream: Stream) -> None:
            got = await read_request(stream)
            stream.write(answer[: len(got.json()["messages"][0]["content"])])
            end(stream)
            await stream.rest()

        found: list[str] = []
        async with self.stage(flow, script) as stage:
            while len(found) <= len(answer):
                batch = range(len(found), min(len(found) + 32, len(answer) + 1))
                asking = [Deferred.fromCoroutine(self.asked(stage, offset)) for offset in batch]
                found += await gatherResults(asking, consumeErrors=True)
        return found


class _Connects:
    """A factory of one connection."""

    noisy = False

    def __init__(self, stream: Stream, connected: Deferred[Stream]) -> None:
        self._stream = stream
        self._connected = connected

    def buildProtocol(self, address: object) -> Stream:
        stream = self._stream
        reactor.callLater(0, self._connected.callback, stream)
        return stream

    def startedConnecting(self, connector: object) -> None:
        pass

    def clientConnectionFailed(self, connector: object, reason: Any) -> None:
        self._connected.errback(reason)

    def clientConnectionLost(self, connector: object, reason: object) -> None:
        pass

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass


async def eventually(holds: Callable[[], bool], most: int = 2000) -> bool:
    """Let the reactor run until it holds; whether it did in the end."""
    for _ in range(most):
        if holds():
            return True
        await turns(1)
    return holds()
