"""Clients that stop reading, in every flow: disconnected after ``timeoutSeconds``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.ssl import optionsForClientTLS
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from stream_proxy import ProxyResource
from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.request_log import RequestLog
from tests.support.certificates import server_context, trust
from tests.support.flood import MIB, Pour, numbered, small_buffers
from tests.support.loopback import reactor, turns
from tests.support.payloads import CHAT, event
from tests.support.sessions import BINARY, CLOSE, HANDSHAKE, Frame, accepted, frame, handshake, read_frame
from tests.support.stalls import ASK, EVENTS, LARGE, NOTHING, StallTestCase, call
from tests.support.wire import GET, UPLOAD, Stream, event_stream_head, head, read_head, read_request, respond


class DeafTests(StallTestCase):
    """Clients that read nothing are disconnected."""

    async def converted(self, stream: Stream) -> None:
        """Play an upstream with large responses."""
        while True:
            await read_request(stream)
            respond(stream, 200, LARGE, EVENTS)

    async def test_converted(self) -> None:
        """A converted response, whose stream has long ended."""
        client = await self.deaf(await self.between(self.converted), call())
        await self.dropped(client, rf"\APOST {CHAT} 499 converted .* \d+ bytes")

    async def test_closing(self) -> None:
        """A converted response on a connection that is to close after it."""
        closing = call().replace(b"Host: x", b"Connection: close\r\nHost: x")
        client = await self.deaf(await self.between(self.converted), closing)
        await self.dropped(client, rf"\APOST {CHAT} 499 converted")

    async def test_early_response(self) -> None:
        """A response sent before the client has finished its request."""

        class Early(Resource):
            isLeaf = True
            streamsUploads = True

            def render(self, request: Request) -> bytes:
                return b"x" * 16 * MIB

        part = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
        client = await self.deaf(await self.serve(Early()), part)
        await self.dropped(client, r"\APOST / 499 dropped")

    async def test_pipelined(self) -> None:
        """Pipelined requests whose responses are not read."""

        class Page(Resource):
            isLeaf = True

            def render(self, request: Request) -> bytes:
                return b"x" * 16 * MIB

        client = await self.deaf(await self.serve(Page()), GET * 3)
        await self.dropped(client, r"\A- - 499 dropped")

    async def test_tls(self) -> None:
        """A client that reads nothing over TLS."""
        trust(self)

        class Page(Resource):
            isLeaf = True

            def render(self, request: Request) -> bytes:
                return b"x" * 16 * MIB

        port = await self.serve(Page(), server_context("127.0.0.1"))
        client = Stream()
        endpoint = wrapClientTLS(
            optionsForClientTLS("127.0.0.1"), HostnameEndpoint(reactor, "127.0.0.1", port)
        )
        await connectProtocol(endpoint, client)
        self.addCleanup(client.transport.abortConnection)
        client.write(GET)
        await client.some()
        client.transport.pauseProducing()
        await self.dropped(client, r"\A- - 499 dropped")

    async def test_relayed(self) -> None:
        """A relayed response; the reason is in its own log line."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(200, [("Content-Length", str(64 * MIB))]))
            Pour(stream, numbered(64 * MIB))
            await stream.rest()

        client = await self.deaf(await self.between(script), GET)
        await self.dropped(client, r"\AGET /v1/x 499 passed http\S+ \d+ bytes")

    async def test_dripping_upstream(self) -> None:
        """An upstream that keeps sending a little does not save a client that reads nothing."""
        streams: list[Stream] = []

        async def script(stream: Stream) -> None:
            await read_request(stream)
            streams.append(stream)
            stream.write(event_stream_head())
            stream.chunk(b"x" * 16 * MIB)
            await stream.rest()

        async def drip() -> None:
            streams[0].chunk(b"x")
            await turns(2)

        client = await self.deaf(await self.between(script), GET)
        await self.dropped(client, r"\AGET /v1/x 499 passed", drip)

    async def test_adapter(self) -> None:
        """A stream that the adapter produces."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(200, EVENTS))
            Pour(stream, [event({"text": "x" * 60_000})] * 1000)
            await stream.rest()

        port = await self.between(script, AdapterResource)
        await self.dropped(
            await self.deaf(port, call({**ASK, "stream": True})), rf"\APOST {CHAT} 499 adapted"
        )

    async def test_websocket(self) -> None:
        """A WebSocket; its upstream sees the same close as if the client had disconnected."""
        servers: list[Stream] = []

        async def script(stream: Stream) -> None:
            stream.write(accepted(await read_head(stream)))
            servers.append(stream)
            Pour(stream, [frame(BINARY, bytes(60_000))] * 1000)

        port = await self.between(script, own_clock=True)
        client = await self.deaf(port, handshake(HANDSHAKE), read=True)
        await self.stuck()
        while self.served.channels:
            await self.passes(10)
            await turns(1)
        self.assertEqual(await read_frame(servers[0]), Frame(CLOSE, b"\x03\xe9", masked=True))
        servers[0].close()
        self.assertRegex(await self.log.match(NOTHING), r"\AGET /v1/realtime 101 websocket .* bytes down: ")
        client.transport.resumeProducing()
        await client.gone()


class GoneTests(StallTestCase):
    """Clients that leave while nothing is read from them."""

    async def test_held_back_upload(self) -> None:
        """A client that leaves in the middle of an upload that the upstream does not read."""
        if sys.platform != "linux":
            self.skipTest("only Linux tells")
        begun: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            small_buffers(stream)
            await stream.until(b"\r\n\r\n")
            stream.transport.pauseProducing()
            begun.callback(stream)

        client = await self.client(await self.between(script))
        client.write(UPLOAD % (64 * MIB))
        await begun
        await Pour(client, numbered(64 * MIB)).stopped()
        client.abort()
        await client.gone()
        await turns(10)
        self.assertEqual(self.log.lines, [])
        self.clock.advance(10)
        self.assertIn("the client went away", await self.log.match("499"))


class OtherSiteTests(StallTestCase):
    """Sites of other kinds, which do not watch their connections; paused flows do so themselves."""

    async def cut(self, kind: Callable[..., Any], piece: bytes, request: bytes) -> None:
        """Check that client and upstream are disconnected after ``timeoutSeconds``."""
        pour: Deferred[Pour] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(200, EVENTS))
            pour.callback(Pour(stream, [piece] * 1000))
            await stream.rest()

        upstream = await self.upstream(script)
        resource = kind(upstream.url, reactor=reactor, log=RequestLog(observer=self.log))
        resource.clock = self.clock
        self.addCleanup(resource.close)
        site = Site(resource, reactor=reactor)
        site.noisy = False
        site.log = lambda request: None  # type: ignore[method-assign]
        client = await self.deaf(await self.listen(site), request, read=True)
        await (await pour).stopped()
        await self.at_rest()
        self.clock.advance(600)
        self.assertIn("took nothing for 600 seconds", await self.log.match("POST|GET"))
        client.transport.resumeProducing()
        await client.gone()
        await upstream.connections[0].gone()

    async def test_relayed(self) -> None:
        """A relayed response."""
        await self.cut(ProxyResource, bytes(60_000), GET)

    async def test_adapter(self) -> None:
        """A stream that the adapter produces."""
        await self.cut(AdapterResource, event({"text": "x" * 60_000}), call({**ASK, "stream": True}))
