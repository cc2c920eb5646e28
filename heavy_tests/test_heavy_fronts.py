"""Load balancers as ``deploy/`` configures them: streams, WebSockets, uploads, checks, addresses."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol

from heavy_tests.fronts import Pair
from tests.support.loopback import reactor
from tests.support.payloads import CHAT, CHAT_BODY, DONE, chunk
from tests.support.twistd import eventually
from tests.support.wire import (
    Stream,
    event_stream_head,
    read_head,
    read_request,
    read_response,
    respond,
    send_request,
)

_MIB = 2**20


class HAProxyTests(Pair):
    """HAProxy."""

    front = "haproxy"
    config = {"drainDelaySeconds": 30}

    async def scripted(self) -> Deferred[None]:
        """Start all of it in front of an upstream whose streams end when the Deferred fires."""
        go_on: Deferred[None] = Deferred()
        waiting: list[Deferred[None]] = []

        def release(_: None) -> None:
            for each in waiting:
                each.callback(None)

        go_on.addCallback(release)

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                if request.target.endswith("/models"):
                    respond(stream, 200, b"{}")
                elif request.target.endswith("/files"):
                    respond(stream, 200, b"%d" % len(request.body))
                else:
                    stream.write(event_stream_head())
                    stream.chunk(chunk({"content": "Hel"}))
                    waiting.append(Deferred())
                    await waiting[-1]
                    stream.chunk(chunk({"content": "lo"}, "stop") + DONE)
                    stream.chunk(b"")

        await self.begin((await self.upstream(script)).url)
        return go_on

    async def test_stream(self) -> None:
        """Each event comes at once, and a large upload comes whole."""
        go_on = await self.scripted()
        client = await self.client(self.front_port)
        send_request(client, "POST", CHAT, {**CHAT_BODY, "stream": True})
        self.assertEqual((await read_head(client)).status, 200)
        await client.until(b'"Hel"')
        go_on.callback(None)
        await client.until(b"[DONE]")
        body = os.urandom(40 * _MIB)
        answer = await self.request(self.front_port, "POST", "/v1/files", body)
        self.assertEqual((answer.status, answer.body), (200, b"%d" % len(body)))

    async def test_websocket(self) -> None:
        """A WebSocket is relayed."""
        await self.begin(await self.mock())
        client = await self.client(self.front_port)
        client.write(
            b"GET /v1/echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        self.assertIn(" 101", (await client.until(b"\r\n\r\n")).decode())
        client.write(b"\x81\x82\0\0\0\0hi")
        self.assertEqual(await client.exactly(4), b"\x81\x02hi")
        client.close()

    async def served_by(self) -> set[int]:
        """Return which instances serve some calls."""
        before = [process.output.count("GET /v1/models") for process in self.instances]
        for _ in range(6):
            self.assertEqual((await self.request(self.front_port, "GET", "/v1/models")).status, 200)
        found: set[int] = set()

        async def logged() -> bool:
            counts = [process.output.count("GET /v1/models") for process in self.instances]
            found.update(number for number in range(2) if counts[number] > before[number])
            return sum(counts) - sum(before) >= 6

        await eventually(logged)
        return found

    async def served_soon_by(self, *numbers: int) -> None:
        """Wait until just these instances serve calls."""

        async def served() -> bool:
            return await self.served_by() == set(numbers)

        await eventually(served)

    async def test_checks(self) -> None:
        """An instance that stops gets no further calls before its ports close; one that starts gets some."""
        await self.begin(await self.mock())
        await self.served_soon_by(0, 1)
        self.instances[0].signal("TERM")
        await self.instances[0].line("the ports close in 30 s")
        await self.served_soon_by(1)
        self.assertNotIn("Closed", self.instances[0].output)
        self.instances[0].signal("TERM")
        await self.instances[0].ended()
        self.instances[0] = self.start(0)
        await self.served_soon_by(0, 1)

    async def test_least_connections(self) -> None:
        """New calls go where fewer are under way."""
        go_on = await self.scripted()
        await self.served_soon_by(0, 1)
        clients = []
        for _ in range(6):
            client = await self.client(self.front_port)
            send_request(client, "POST", CHAT, {**CHAT_BODY, "stream": True})
            await client.until(b'"Hel"')
            clients.append(client)
        go_on.callback(None)
        for client in clients:
            await client.until(b"[DONE]")
            client.close()
        for process in self.instances:
            await process.times(f"POST {CHAT} 200", 3)

    async def test_nobody(self) -> None:
        """If no instance runs, the client gets an error, not silence."""
        await self.begin(await self.mock())
        for process in self.instances:
            process.signal("TERM")
            await process.line("the ports close in 30 s")
            process.signal("TERM")
            await process.ended()
        answer = await self.request(self.front_port, "GET", "/v1/models")
        self.assertIn(answer.status, (502, 503))


class NginxTests(HAProxyTests):
    """nginx, which does not look at ``/readyz``: it goes on until the ports close."""

    front = "nginx"

    async def test_checks(self) -> None:
        """Calls go to the other instance once the ports are closed, and none fails."""
        await self.begin(await self.mock())
        self.assertEqual(await self.served_by(), {0, 1})
        self.instances[0].signal("TERM")
        await self.instances[0].line("the ports close in 30 s")
        self.assertEqual(await self.served_by(), {0, 1})
        self.instances[0].signal("TERM")
        await self.instances[0].ended()
        self.assertEqual(await self.served_by(), {1})
        self.instances[0] = self.start(0)
        await self.listens(0)
        await self.served_soon_by(0, 1)


class CaddyTests(HAProxyTests):
    """Caddy."""

    front = "caddy"


class ProxyProtocolTests(Pair):
    """HAProxy, which tells the addresses of clients by the PROXY protocol."""

    front = "haproxy"
    endpoint = "haproxy:tcp:{port}:interface={address}"
    changes = (("default-server check", "default-server send-proxy-v2 check"),)
    config = {"log": {"format": "json"}}

    async def test_address(self) -> None:
        """Calls and streams are answered, health checks do without, and the log has the client's address."""
        await self.begin(await self.mock())
        for streams in (False, True):
            client = Stream()
            endpoint = HostnameEndpoint(reactor, "127.0.0.1", self.front_port, bindAddress=("127.0.0.9", 0))
            await connectProtocol(endpoint, client)
            send_request(client, "POST", CHAT, {**CHAT_BODY, "stream": streams}, [("Connection", "close")])
            self.assertEqual((await read_response(client)).status, 200)
            await client.gone()

        async def logged() -> bool:
            return sum(each.output.count('"client":"127.0.0.9"') for each in self.instances) == 2

        await eventually(logged)
