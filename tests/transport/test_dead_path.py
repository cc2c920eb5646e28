"""Dead paths: found by what TCP tells, in every flow, and never taken for a slow peer."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy import ProxyResource
from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.request_log import RequestLog
from stream_proxy.transport import dead_path
from stream_proxy.transport.dead_path import Path, PathState, PathWatch, path_state
from tests.support.loopback import Script, Upstream, reactor, turns
from tests.support.payloads import CHAT, CHAT_BODY
from tests.support.sessions import HANDSHAKE, accepted, handshake
from tests.support.stalls import StallTestCase
from tests.support.wire import (
    GET,
    Stream,
    event_stream_head,
    head,
    read_head,
    read_request,
    read_response,
    send_request,
)

#: Something was sent, and again, and again; the peer has said nothing.
SILENT = PathState(retransmits=3, probes=0, under_way=1, sent=1, acknowledged=3600)


class PathTests(SynchronousTestCase):
    """:class:`Path`, given what TCP tells at each look."""

    def dies(self, *states: PathState | None, step: int = 5) -> int | None:
        """Return after how many seconds of looks at `states`, the last one repeated, a path is dead."""
        path = Path(None)
        for number in range(200):
            state = states[min(number, len(states) - 1)]
            self.patch(dead_path, "path_state", lambda connection, found=state: found)
            if path.is_dead(1000 + number * step):
                return number * step
        return None

    def test_dead(self) -> None:
        """Data, or a probe of a closed window, is sent again for 30 seconds without an acknowledgement."""
        self.assertEqual(self.dies(SILENT), 30)
        self.assertEqual(self.dies(PathState(0, 1, 1, 3600, 3600)), 30)
        self.assertEqual(self.dies(PathState(0, 0, 1, 0, 3600), SILENT), 35)

    def test_idle_before(self) -> None:
        """One lost segment after an idle hour is no dead path, if the next one arrives."""
        self.assertIsNone(self.dies(SILENT, SILENT, PathState(0, 0, 0, 5, 5)))
        answered = PathState(retransmits=4, probes=0, under_way=1, sent=1, acknowledged=4)
        self.assertEqual(self.dies(SILENT, SILENT, SILENT, answered, SILENT), 45)

    def test_asleep(self) -> None:
        """A peer that acknowledges but does not read lives, although TCP asks it ever less often."""
        asking = PathState(retransmits=0, probes=1, under_way=9, sent=400, acknowledged=120)
        heard = PathState(retransmits=0, probes=0, under_way=9, sent=400, acknowledged=100)
        self.assertIsNone(self.dies(*[heard, heard, asking] * 60, heard))
        self.assertIsNone(self.dies(*[asking] * 6, heard))

    def test_no_progress(self) -> None:
        """A peer that acknowledges each attempt without taking it lives, between the attempts as well."""
        between = PathState(retransmits=5, probes=0, under_way=9, sent=100.2, acknowledged=100)
        self.assertIsNone(self.dies(between))
        self.assertIsNone(self.dies(*[PathState(5, 0, 9, 0.1, 2.0)] * 50, between))

    def test_keep_alive(self) -> None:
        """Probes of an idle connection are TCP keep-alive's business."""
        self.assertIsNone(
            self.dies(PathState(retransmits=0, probes=4, under_way=0, sent=500, acknowledged=500))
        )

    def test_unknown(self) -> None:
        """Nothing is dead where the system does not tell."""
        self.assertIsNone(self.dies(None))
        self.assertIsNone(self.dies(SILENT, SILENT, None))


class StateTests(StallTestCase):
    """:func:`path_state`, as this system tells it."""

    def setUp(self) -> None:
        super().setUp()
        if sys.platform != "linux":
            self.skipTest("only Linux tells")

    async def test_asleep(self) -> None:
        """Data is under way to a peer that does not read, and acknowledged."""

        async def script(stream: Stream) -> None:
            stream.transport.pauseProducing()

        service = await self.upstream(script)
        client = await self.client(service.port)
        state = path_state(client.transport)
        assert state is not None
        self.assertEqual((state.under_way, state.unanswered), (0, False))
        client.write(bytes(16 * 2**20))
        while not client.transport.dataBuffer:
            await turns(1)
        state = path_state(client.transport)
        assert state is not None
        self.assertGreater(state.under_way, 0)
        self.assertLess(state.acknowledged, 60)
        self.assertFalse(Path(client.transport).is_dead(0))

    def test_others(self) -> None:
        """A UNIX socket, a closed one and a transport of a test have no state."""
        one, other = socket.socketpair()
        self.addCleanup(other.close)

        class Transport:
            def getHandle(self) -> socket.socket:
                return one

        self.assertIsNone(path_state(Transport()))
        one.close()
        self.assertIsNone(path_state(Transport()))
        self.assertIsNone(path_state(None))


class FlowTests(StallTestCase):
    """Both legs of every flow."""

    def setUp(self) -> None:
        super().setUp()
        self.dead: set[Any] = set()

        def state(connection: Any) -> PathState | None:
            return SILENT if connection in self.dead else None

        self.patch(dead_path, "path_state", state)

    async def through(self, script: Script, kind: Callable[..., Any] = ProxyResource) -> tuple[Upstream, int]:
        """Start an upstream and a proxy before it, both of whose watches follow the test's clock."""
        upstream = await self.upstream(script)
        options: dict[str, Any] = {}
        if kind is AdapterResource:
            options["config"] = AdapterConfig(models=("m",))
        resource = kind(upstream.url, reactor=reactor, log=RequestLog(observer=self.log), **options)
        self.paths = PathWatch(self.clock)
        resource.upstream._connections.paths = self.paths
        self.addCleanup(resource.close)
        return upstream, await self.serve(resource)

    def upstream_dies(self) -> None:
        """Let the path to the upstream be dead from now on, and pass half a minute."""
        (connection,) = self.paths._paths
        self.dead.add(self.paths._paths[connection]._connection)
        self.clock.pump([5] * 7)

    async def test_waiting(self) -> None:
        """A request that waits for its response is a 502; nothing is left of it."""
        for kind, method, target, body in (
            (ProxyResource, "GET", "/v1/models", None),
            (ProxyResource, "POST", CHAT, CHAT_BODY),
            (AdapterResource, "POST", CHAT, {**CHAT_BODY, "model": "m"}),
        ):

            async def script(stream: Stream) -> None:
                await read_request(stream)
                await stream.rest()

            upstream, port = await self.through(script, kind)
            client = await self.client(port)
            send_request(client, method, target, body)
            while not (upstream.connections and upstream.connections[0].received and self.paths._paths):
                await turns(1)
            self.upstream_dies()
            answer = await read_response(client)
            error = answer.json()["error"]
            self.assertEqual((answer.status, error["code"]), (502, "upstream_unreachable"))
            self.assertEqual(
                error["message"],
                f"The path to {upstream.url} is dead: it acknowledged nothing for 30 seconds.",
            )
            self.assertEqual((self.paths._paths, self.paths._timeout.running), ({}, False))
            await upstream.connections[0].gone()

    async def test_body(self) -> None:
        """A relayed response that has begun is cut; the log says why."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(200, [("Content-Length", "9")]) + b"part")
            await stream.rest()

        _, port = await self.through(script)
        client = await self.client(port)
        client.write(GET)
        await client.until(b"part")
        self.upstream_dies()
        await client.gone()
        await self.log.match("is dead: it acknowledged nothing for 30 seconds")

    async def test_websocket(self) -> None:
        """A WebSocket's upstream that vanished is closed, and the client told so."""

        async def script(stream: Stream) -> None:
            stream.write(accepted(await read_head(stream)))
            await stream.rest()

        _, port = await self.through(script)
        client = await self.client(port)
        client.write(handshake(HANDSHAKE))
        self.assertEqual((await read_head(client)).status, 101)
        self.upstream_dies()
        await client.until(b"\x03\xf3")  # 1011
        self.assertFalse(self.paths._timeout.running)

    async def test_once(self) -> None:
        """A connection is watched once, whatever its requests, and until it ends."""

        async def script(stream: Stream) -> None:
            for _ in range(2):
                await read_request(stream)
                seen.append(len(self.paths._paths))
                stream.write(head(200, [("Content-Length", "0")]))

        seen: list[int] = []
        upstream, port = await self.through(script)
        client = await self.client(port)
        for _ in range(2):
            client.write(GET)
            await read_response(client)
        self.assertEqual((seen, len(self.paths._paths), self.paths._timeout.running), ([1, 1], 1, True))
        upstream.connections[0].abort()
        while self.paths._paths:
            await turns(1)
        self.assertFalse(self.paths._timeout.running)

    async def test_client(self) -> None:
        """A client whose path is dead is dropped, and its request logged as such."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(b": x\n\n")
            await stream.rest()

        upstream, port = await self.through(script)
        client = await self.client(port)
        client.write(GET)
        await client.until(b": x")
        self.dead.add(self.channel.outbox.path._connection)
        self.clock.pump([10] * 4)
        line = await self.log.match("499")
        self.assertIn("The path to the client is dead: it acknowledged nothing for 30 seconds.", line)
        await upstream.connections[0].gone()
        await client.gone()

    async def test_idle_client(self) -> None:
        """A connection without a request is left to TCP keep-alive."""
        port = await self.serve()
        client = await self.client(port)
        client.write(GET)
        await read_response(client)
        self.dead.add(self.channel.outbox.path._connection)
        self.clock.pump([10] * 10)
        await turns(3)
        self.assertEqual((len(self.served.channels), self.log.lines), (1, []))
