"""Backpressure of relayed bodies, and clients that disconnect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from stream_proxy.flows.resource import ProxyResource
from stream_proxy.request_log import RequestLog
from tests.support.certificates import server_context, trust
from tests.support.flood import MIB, Pour, numbered, small_buffers
from tests.support.loopback import LoopbackTestCase, turns
from tests.support.payloads import CHAT, CHAT_BODY
from tests.support.stalls import EVENTS, LARGE
from tests.support.wire import (
    CHUNKED_UPLOAD,
    GET,
    JSON,
    UPLOAD,
    Stream,
    event_stream_head,
    head,
    read_request,
    read_response,
    respond,
    send_request,
)


class BackpressureTests(LoopbackTestCase):
    """A reader that stops reading pauses the sender, in either direction."""

    total = 64 * MIB
    bound = 24 * MIB

    async def download(self, first: bytes, rest: bytes, request: bytes = GET) -> None:
        pieces = numbered(self.total)
        pour: Deferred[Pour] = Deferred()

        async def script(stream: Stream) -> None:
            small_buffers(stream)
            await stream.until(b"\r\n\r\n")
            stream.write(first)
            pour.callback(Pour(stream, pieces))
            await stream.rest()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        small_buffers(client)
        client.write(request)
        await client.until(b"\r\n\r\n")
        client.transport.pauseProducing()
        poured = await pour
        self.assertLess(await poured.stopped() * 65536, self.bound)
        client.transport.resumeProducing()
        for piece in pieces:
            self.assertTrue(await client.exactly(len(piece)) == piece)

    async def test_download(self) -> None:
        """A slow client pauses the upstream; once it reads on, everything arrives in order."""
        await self.download(head(200, [("Content-Length", str(self.total))]), b"")

    async def test_old_download(self) -> None:
        """The same holds for a body without a length, sent to an HTTP/1.0 client."""
        await self.download(head(200), b"", b"GET / HTTP/1.0\r\n\r\n")

    async def test_upload(self) -> None:
        """A slow upstream pauses the client; once it reads on, everything arrives in order."""
        pieces = numbered(self.total)
        begun: Deferred[Stream] = Deferred()
        read: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            small_buffers(stream)
            await stream.until(b"\r\n\r\n")
            stream.transport.pauseProducing()
            begun.callback(stream)
            await read
            stream.transport.resumeProducing()
            for piece in pieces:
                self.assertTrue(await stream.exactly(len(piece)) == piece)
            respond(stream, 200, b"ok")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        small_buffers(client)
        client.write(UPLOAD % self.total)
        await begun
        pour = Pour(client, pieces)
        self.assertLess(await pour.stopped() * 65536, self.bound)
        read.callback(None)
        self.assertEqual((await read_response(client)).body, b"ok")

    async def test_upload_before_there_is_a_connection(self) -> None:
        """An upload stays with the client while the upstream is being connected."""
        waiting: Deferred[Any] = Deferred()

        class Endpoint:
            def connect(self, factory: object) -> Deferred[Any]:
                return waiting

        async def script(stream: Stream) -> None:
            raise AssertionError

        upstream = await self.upstream(script)
        resources: list[ProxyResource] = []

        def make(*args: Any, **kwargs: Any) -> ProxyResource:
            resource = ProxyResource(*args, **kwargs)
            resources.append(resource)
            return resource

        port = await self.proxy(upstream.url, resource=make)
        resources[0].upstream._connections.endpoint = Endpoint()  # type: ignore[assignment]
        client = await self.client(port)
        small_buffers(client)
        client.write(UPLOAD % self.total)
        pour = Pour(client, numbered(self.total))
        self.assertLess(await pour.stopped() * 65536, self.bound)

    async def test_second_response(self) -> None:
        """A pipelined request is sent upstream once the client has read the response before it."""
        requests: list[str] = []

        async def script(stream: Stream) -> None:
            small_buffers(stream)
            while True:
                requests.append((await read_request(stream)).method)
                if requests[-1] == "POST":
                    respond(stream, 200, LARGE, EVENTS)
                else:
                    respond(stream, 200, b"second")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        small_buffers(client)
        client.transport.pauseProducing()
        send_request(client, "POST", CHAT, CHAT_BODY)
        client.write(GET)
        while not requests:
            await turns(1)
        await turns(300)
        self.assertEqual(requests, ["POST"])
        client.transport.resumeProducing()
        self.assertGreater(len((await read_response(client)).body), 16 * MIB)
        self.assertEqual((await read_response(client)).body, b"second")
        self.assertEqual(requests, ["POST", "GET"])


class ClientGoneTests(LoopbackTestCase):
    """A client that disconnects ends its upstream request at once."""

    async def leave(
        self,
        request: bytes,
        response: bytes,
        seen: bytes,
        leave: Callable[[Stream], object],
        tls: Any = None,
    ) -> None:
        """Let the client leave once it has received `seen`; the upstream's connection must end."""
        started: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            await stream.until(b"first" if request.endswith(b"first") else b"\r\n\r\n")
            stream.write(response)
            started.callback(stream)
            await stream.rest()

        upstream = await self.upstream(script, tls)
        client = await self.client(await self.proxy(upstream.url))
        client.write(request)
        stream = await started
        if seen:
            await client.until(seen)
        leave(client)
        await stream.gone()

    async def every_way(self, request: bytes, response: bytes, seen: bytes) -> None:
        trust(self)
        ways: list[Callable[[Stream], object]] = [
            Stream.close,
            Stream.abort,
            lambda stream: stream.transport.loseWriteConnection(),
        ]
        for tls in (None, server_context("127.0.0.1")):
            for way in ways:
                await self.leave(request, response, seen, way, tls)

    async def test_before_the_head(self) -> None:
        """A client that leaves before the response: by a close, a reset or a half-close, over TCP and TLS."""
        await self.every_way(GET, b"", b"")

    async def test_inside_the_head(self) -> None:
        """A client that leaves in the middle of the response head."""
        await self.every_way(GET, b"HTTP/1.1 200 OK\r\nX-A", b"")

    async def test_in_the_body(self) -> None:
        """A client that leaves in the middle of the response body."""
        await self.every_way(GET, event_stream_head() + b"3\r\nhel\r\n", b"hel")

    async def test_in_an_upload(self) -> None:
        """A client that leaves in the middle of its upload."""
        await self.every_way(UPLOAD % 100 + b"first", b"", b"")
        await self.every_way(CHUNKED_UPLOAD + b"5\r\nfirst", b"", b"")

    async def test_in_an_upload_with_an_early_response(self) -> None:
        """A client that leaves in the middle of its upload, while an early response is being relayed."""
        await self.every_way(UPLOAD % 100 + b"first", event_stream_head() + b"3\r\nhel\r\n", b"hel")

    async def test_held_call(self) -> None:
        """A client that leaves during the response to a streaming JSON call, whose body was buffered."""
        body = b'{"model": "m", "stream": true}'
        call = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{': '.join(JSON)}\r\nContent-Length: {len(body)}\r\n\r\n"
        await self.every_way(call.encode() + body, event_stream_head() + b"3\r\nhel\r\n", b"hel")

    async def test_while_collecting(self) -> None:
        """A client that leaves while its JSON call is being buffered is forgotten, and nothing is dialled."""

        async def script(stream: Stream) -> None:
            raise AssertionError

        upstream = await self.upstream(script)
        lines: list[Any] = []
        logged: Deferred[None] = Deferred()

        class Log(RequestLog):
            def entry(self, *args: Any, **options: Any) -> None:
                lines.append(args)
                logged.callback(None)

        client = await self.client(await self.proxy(upstream.url, log=Log()))
        client.write(
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{': '.join(JSON)}\r\nContent-Length: 99\r\n\r\n{{".encode()
        )
        await turns()
        client.abort()
        await logged
        self.assertEqual(lines[0][-1]["status"], 499)
        self.assertEqual(upstream.connections, [])

    async def test_while_paused(self) -> None:
        """A client that stopped reading before it left."""

        async def script(stream: Stream) -> None:
            small_buffers(stream)
            await stream.until(b"\r\n\r\n")
            stream.write(head(200))
            started.callback((stream, Pour(stream, numbered(64 * MIB))))
            await stream.rest()

        started: Deferred[tuple[Stream, Pour]] = Deferred()
        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        small_buffers(client)
        client.write(GET)
        await client.until(b"\r\n\r\n")
        client.transport.pauseProducing()
        stream, pour = await started
        await pour.stopped()
        client.abort()
        await stream.gone()
