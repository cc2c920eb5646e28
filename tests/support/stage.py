"""Stages for fault tests: a proxy in front of one upstream, of which nothing may be left at the end.

After each case the process must have no more descriptors, timers, readers or writers than before."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from stream_proxy import Limits, ProxySite
from stream_proxy.request_log import RequestLog
from stream_proxy.upstream.pool import UpstreamPool
from tests.support.faults import FLOWS, Fault, Flow, sends
from tests.support.loopback import LoopbackTestCase, Script, Upstream, reactor, turns
from tests.support.wire import Stream, all_gone, read_request

#: The defaults, but errors have a status however late they come.
_LIMITS = Limits(keep_alive_seconds=0)


@dataclass(frozen=True)
class Held:
    """The resources that this process holds."""

    descriptors: frozenset[str]
    calls: frozenset[Any]
    selectables: frozenset[Any]

    @classmethod
    def now(cls) -> Held:
        """Return the current state."""
        links = []
        for name in os.listdir("/proc/self/fd"):
            try:
                link = os.readlink(f"/proc/self/fd/{name}")
            except OSError:  # the descriptor of the listing itself
                continue
            if link != os.devnull:  # Twisted keeps one in reserve
                links.append(f"{name} {link}")
        selectables = [*reactor.getReaders(), *reactor.getWriters()]
        return cls(frozenset(links), frozenset(reactor.getDelayedCalls()), frozenset(selectables))

    def more_than(self, before: Held) -> list[str]:
        """Return what has been added since `before`."""
        found: list[object] = [
            *(self.descriptors - before.descriptors),
            *(self.calls - before.calls),
            *(self.selectables - before.selectables),
        ]
        return [str(one) for one in found]


class Stage:
    """A proxy in front of one upstream.

    :param flow: determines the proxy's resource.
    """

    def __init__(self, flow: Flow, upstream: Upstream | None, url: str, limits: Limits | None) -> None:
        self.flow = flow
        self.upstream = upstream
        self.pool = UpstreamPool(reactor)
        self.log: list[Any] = []
        log = RequestLog(observer=cast(Any, self.log.append))
        self.resource: Any = flow.resource(
            url, reactor=reactor, limits=limits or _LIMITS, pool=self.pool, log=log
        )
        self.site = ProxySite(self.resource, reactor=reactor)
        self._port: Any = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.port = int(self._port.getHost().port)

    def manual_time(self) -> Clock:
        """Return a clock for the flows that only the test advances."""
        clock = self.resource.clock = Clock()
        return clock

    @property
    def bugs(self) -> list[str]:
        """The bugs that the proxy has logged."""
        return [str(event["log_failure"]) for event in self.log if "log_failure" in event]

    async def close(self) -> None:
        """Close everything that is not leaked."""
        await maybeDeferred(self._port.stopListening)
        await self.site.drain(0)
        await self.pool.drop_idle()


class FaultTestCase(LoopbackTestCase):
    """Cases that must leave nothing behind."""

    @asynccontextmanager
    async def stage(
        self, flow: Flow, script: Script | None, *, scheme: str = "http", limits: Limits | None = None
    ) -> AsyncIterator[Stage]:
        """Run a proxy in front of an upstream with this script; ``None`` means that nothing listens there."""
        await turns(2)  # trial starts a test before the reactor runs
        before = Held.now()
        upstream = Upstream(script or sends(b""), scheme=scheme)
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
            # Of the connections to the upstream, only those kept for reuse may be left.
            kept = stage.pool.count
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
        """Open a raw connection for the current case."""
        stream = Stream()
        connected: Deferred[Stream] = Deferred()
        reactor.connectTCP("127.0.0.1", port, _Connects(stream, connected))
        await connected
        self._streams.append(stream)
        return stream

    async def outcome_of(self, stage: Stage, padding: int = 0) -> str:
        """Send a request and return its outcome."""
        client = await self.client(stage.port)
        client.write(stage.flow.request(padding))
        return stage.flow.outcome(await client.rest())

    async def check(self, faults: Iterable[Fault], flows: Iterable[Flow] = FLOWS) -> None:
        """Fail unless each fault has its expected outcome in each flow."""
        wrong = []
        for fault in faults:
            for flow in flows:
                expected = fault.outcomes[FLOWS.index(flow)]
                async with self.stage(flow, fault.script) as stage:
                    outcome = await self.outcome_of(stage)
                if outcome not in expected.split("|"):
                    wrong.append(f"{fault.name}, {flow.name}: {outcome}, not {expected}")
        self.assertEqual(wrong, [])

    async def offsets(
        self, flow: Flow, response: bytes, end: Callable[[Stream], object] = Stream.close
    ) -> list[str]:
        """Return the outcomes when `response` ends after 0, 1, 2… bytes; many of these calls run at once."""

        async def script(stream: Stream) -> None:
            got = await read_request(stream)
            stream.write(response[: len(got.json()["messages"][0]["content"])])
            end(stream)
            await stream.rest()

        found: list[str] = []
        async with self.stage(flow, script) as stage:
            while len(found) <= len(response):
                batch = range(len(found), min(len(found) + 32, len(response) + 1))
                asking = [Deferred.fromCoroutine(self.outcome_of(stage, offset)) for offset in batch]
                found += await gatherResults(asking, consumeErrors=True)
        return found


class _Connects(ClientFactory):
    """A factory of one connection."""

    noisy = False

    def __init__(self, stream: Stream, connected: Deferred[Stream]) -> None:
        self._stream = stream
        self._connected = connected

    def buildProtocol(self, address: object) -> Stream:
        reactor.callLater(0, self._connected.callback, self._stream)
        return self._stream

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._connected.errback(reason)


async def eventually(holds: Callable[[], bool], most: int = 100_000) -> bool:
    """Let the reactor run until the condition holds; return whether it finally did."""
    for _ in range(most):
        if holds():
            return True
        await turns(1)
    return holds()
