"""Clients that stop reading, in every flow: dropped after ``timeoutSeconds``; those that are slow are not."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from stream_proxy import ProxyResource
from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.downstream import stall
from stream_proxy.downstream.channel import DownstreamChannel
from stream_proxy.downstream.stall import Outbox, StallWatch
from stream_proxy.request_log import RequestLog
from stream_proxy.transport.eager_write import unsent
from tests.support.certificates import server_context, trust
from tests.support.flood import MIB, Pour, numbered, small_buffers
from tests.support.loopback import Script, reactor, turns
from tests.support.payloads import CHAT, CHAT_BODY, DONE, chunk, event
from tests.support.sessions import BINARY, CLOSE, HANDSHAKE, Frame, accepted, frame, handshake, read_frame
from tests.support.sites import LimitsTestCase
from tests.support.wire import (
    GET,
    UPLOAD,
    Stream,
    event_stream_head,
    head,
    read_head,
    read_request,
    read_response,
    respond,
)

NOTHING = "The client took nothing for 600 seconds."
LARGE = chunk({"content": "x" * 16 * MIB}, "stop") + DONE
ASK = {**CHAT_BODY, "model": "gpt-3.5-turbo"}
EVENTS = [("Content-Type", "text/event-stream")]


class StallTestCase(LimitsTestCase):
    """Sites whose time is the test's."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()

    async def serve(self, resource: Any = None, tls: Any = None) -> int:
        """A site; its port."""
        self.served, port = await self.site(resource, tls, self.clock)
        return port

    async def between(
        self, script: Script, kind: Callable[..., Any] = ProxyResource, *, own_clock: bool = False
    ) -> int:
        """A proxy in front of an upstream; its port.

        :param own_clock: its flows have the reactor's time instead of the test's.
        """
        upstream = await self.upstream(script)
        resource = kind(upstream.url, reactor=reactor, log=RequestLog(observer=self.log))
        if not own_clock:
            resource.clock = self.clock
        self.addCleanup(resource.close)
        return await self.serve(resource)

    @property
    def channel(self) -> DownstreamChannel:
        """The connection, of which there is one."""
        (channel,) = self.served.channels
        return channel

    async def deaf(self, port: int, *requests: bytes, read: bool = False) -> Stream:
        """A client that has sent this, and reads nothing more (if `read`: than the first bytes)."""
        client = await self.client(port)
        small_buffers(client)
        if not read:
            client.transport.pauseProducing()
        for request in requests:
            client.write(request)
        if read:
            await client.some()
            client.transport.pauseProducing()
        return client

    async def stuck(self) -> None:
        """Wait until something waits for the client and none of it moves."""
        while not self.served.channels:
            await turns(1)
        await stands_still(self.channel.outbox._connection)

    async def passes(self, seconds: int, each: Callable[[], Awaitable[object]] | None = None) -> None:
        """Let time pass, in steps of 10 seconds; after each of them comes `each`."""
        for _ in range(seconds // 10):
            self.clock.advance(10)
            if each is not None:
                await each()

    async def told(self, each: Any = None) -> None:
        """Let time pass until the log tells; the kernels may have taken a last packet meanwhile."""
        while not any(NOTHING in line for line in self.log.lines):
            await self.passes(10, each)
            await turns(1)

    async def dropped(self, client: Stream, line: str, each: Any = None) -> None:
        """The client is dropped, not too soon, and the log has this line for it."""
        await self.stuck()
        await self.passes(590, each)
        await turns(3)
        self.assertEqual(len(self.served.channels), 1)
        await self.told(each)
        self.assertRegex(await self.log.match(NOTHING), line)
        self.assertEqual(len([told for told in self.log.lines if NOTHING in told]), 1)
        while self.served.channels:
            await turns(1)
        client.transport.resumeProducing()
        await client.gone()

    async def takes_something(self, client: Stream) -> None:
        """Let the client read until the other end knows that it did."""
        if not self.served.channels:
            return
        outbox = self.channel.outbox

        def taken() -> int:
            return outbox._given - stall._unacknowledged(outbox._connection)

        before = taken()
        client.transport.resumeProducing()
        while outbox.waiting and taken() == before:
            await turns(1)
        client.transport.pauseProducing()


async def stands_still(connection: Any) -> None:
    """Wait until something waits to be sent, and none of it moves."""
    still, last = 0, (0, 0)
    while still < 30:
        await turns(1)
        now = (unsent(connection), stall._unacknowledged(connection))
        still = still + 1 if now[0] and now == last else 0
        last = now


def call(body: object = CHAT_BODY) -> bytes:
    """The bytes of a chat call."""
    data = json.dumps(body).encode()
    fields = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return f"POST {CHAT} HTTP/1.1\r\n{fields}".encode() + data


class DeafTests(StallTestCase):
    """Who takes nothing is dropped."""

    async def converted(self, stream: Stream) -> None:
        """An upstream whose answers are large."""
        while True:
            await read_request(stream)
            respond(stream, 200, LARGE, EVENTS)

    async def test_converted(self) -> None:
        """A converted answer, whose request has long ended."""
        client = await self.deaf(await self.between(self.converted), call())
        await self.dropped(client, r"\A- - 499 dropped - 0 bytes")

    async def test_closing(self) -> None:
        """The same where the connection is to close after it."""
        closing = call().replace(b"Host: x", b"Connection: close\r\nHost: x")
        client = await self.deaf(await self.between(self.converted), closing)
        await self.dropped(client, r"\A- - 499 dropped")

    async def test_early_answer(self) -> None:
        """The same where the client has not sent all of its request."""

        class Early(Resource):
            isLeaf = True
            streamsUploads = True

            def render(self, request: Request) -> bytes:
                return b"x" * 16 * MIB

        part = b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"
        client = await self.deaf(await self.serve(Early()), part)
        await self.dropped(client, r"\APOST / 499 dropped")

    async def test_pipelined(self) -> None:
        """Many requests, whose answers nobody reads."""

        class Page(Resource):
            isLeaf = True

            def render(self, request: Request) -> bytes:
                return b"x" * MIB

        client = await self.deaf(await self.serve(Page()), GET * 100)
        await self.dropped(client, r"\A- - 499 dropped")

    async def test_tls(self) -> None:
        """The same below TLS."""
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
        """An answer that is relayed: its own line in the log tells."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(200, [("Content-Length", str(64 * MIB))]))
            Pour(stream, numbered(64 * MIB))
            await stream.rest()

        client = await self.deaf(await self.between(script), GET)
        await self.dropped(client, r"\AGET /v1/x 499 passed http\S+ \d+ bytes")

    async def test_dripping_upstream(self) -> None:
        """That the upstream sends a little all the time does not help a client that takes nothing."""
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
        """A stream that the adapter makes."""

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
        """A WebSocket, whose upstream is told as if the client had gone."""
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
    """Clients that leave while nothing is read of them."""

    async def test_held_back_upload(self) -> None:
        """In the middle of an upload that the upstream does not take."""
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
    """A site that is not ours does not watch its connections; flows that are held back do it themselves."""

    async def cut(self, kind: Callable[..., Any], piece: bytes, request: bytes) -> None:
        """The client is let go after ``timeoutSeconds``; the upstream is, too."""
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
        self.clock.advance(600)
        self.assertIn("took nothing for 600 seconds", await self.log.match("POST|GET"))
        client.transport.resumeProducing()
        await client.gone()
        await upstream.connections[0].gone()

    async def test_relayed(self) -> None:
        """A relayed answer."""
        await self.cut(ProxyResource, bytes(60_000), GET)

    async def test_adapter(self) -> None:
        """A stream that the adapter makes."""
        await self.cut(AdapterResource, event({"text": "x" * 60_000}), call({**ASK, "stream": True}))


class SlowTests(StallTestCase):
    """Who takes something is not dropped, however long it takes."""

    async def still_there(self, client: Stream, each: Callable[[], Awaitable[object]]) -> None:
        """The client gets the rest after all that time."""
        await self.stuck()
        for _ in range(8):
            await self.passes(500)
            await each()
        self.assertTrue(self.served.channels)
        self.assertEqual([line for line in self.log.lines if NOTHING in line], [])
        client.transport.resumeProducing()

    async def test_converted(self) -> None:
        """A converted answer arrives whole although that takes longer than an idle connection is kept."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 200, LARGE, EVENTS)

        client = await self.deaf(await self.between(script), call())
        await self.still_there(client, lambda: self.takes_something(client))
        answer = await read_response(client)
        self.assertEqual((answer.complete, len(answer.body) > 16 * MIB), (True, True))

    async def test_relayed(self) -> None:
        """A relayed answer, whose upstream is held back longer than ``timeoutSeconds``."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(200, [("Content-Length", str(16 * MIB))]))
            Pour(stream, numbered(16 * MIB))

        client = await self.deaf(await self.between(script), GET)
        await self.still_there(client, lambda: self.takes_something(client))
        self.assertTrue((await read_response(client)).complete)

    async def test_adapter(self) -> None:
        """A stream that the adapter makes."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(200, EVENTS))
            Pour(stream, [event({"text": "x" * 60_000})] * 200, stream.close)

        port = await self.between(script, AdapterResource)
        client = await self.deaf(port, call({**ASK, "stream": True}))
        await self.still_there(client, lambda: self.takes_something(client))
        answer = await read_response(client)
        self.assertEqual((answer.complete, answer.body.endswith(DONE)), (True, True))

    async def test_silent_upstream(self) -> None:
        """That a client still reads does not excuse an upstream that is silent and was not held back."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(b"hello")
            await stream.rest()

        client = await self.client(await self.between(script))
        client.write(GET)
        await client.until(b"hello\r\n")
        self.clock.advance(600)
        await client.gone()
        self.assertIn("The upstream sent nothing for 600 seconds", await self.log.match("passed"))

    async def test_end_of_a_session(self) -> None:
        """What a WebSocket was sent before its upstream left arrives at a slow client, too."""
        servers: list[Stream] = []

        async def script(stream: Stream) -> None:
            stream.write(accepted(await read_head(stream)))
            servers.append(stream)

        client = await self.deaf(await self.between(script), handshake(HANDSHAKE), read=True)
        sent = 0
        while not self.channel.outbox.waiting:
            servers[0].write(frame(BINARY, bytes(16_000)))
            sent += 16_000
            await turns(5)
        servers[0].close()
        await servers[0].gone()
        await turns(5)
        await self.stuck()
        await self.passes(590)
        await turns(5)
        self.assertTrue(self.served.channels)
        client.transport.resumeProducing()
        self.assertTrue((await client.rest()).endswith(b"upstream websocket disconnected abnormally"))
        self.assertGreater(client.received, sent)
        self.clock.advance(30)
        await self.log.match("the upstream went away")


class OutboxTests(StallTestCase):
    """`Outbox` and `StallWatch` by themselves."""

    async def test_kernel(self) -> None:
        """What the peer's kernel has acknowledged counts, although ours asks for nothing yet."""
        if sys.platform != "linux":
            self.skipTest("only Linux tells")
        sender: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            sender.callback(stream)

        client = await self.client((await self.upstream(script)).port)
        small_buffers(client)
        client.transport.pauseProducing()
        server = await sender
        server.write(b"x" * 16 * MIB)
        outbox = Outbox(server.transport)
        connection = outbox._connection
        await stands_still(outbox._connection)
        self.assertEqual([outbox.stalled(now) for now in (0, 5)], [0, 5])
        given, connection = outbox._given, outbox._connection
        connection.stopWriting()  # as if the kernel were slow to ask
        held = stall._unacknowledged(connection)
        client.transport.resumeProducing()
        while stall._unacknowledged(connection) == held:
            await turns(1)
        self.assertEqual(outbox._given, given)
        self.assertEqual(outbox.stalled(700), 0)

    def test_no_connection(self) -> None:
        """On what is no TCP connection nothing ever waits."""
        outbox = Outbox(object())
        self.assertEqual((outbox.waiting, outbox.stalled(10)), (False, 0))

    async def test_timer(self) -> None:
        """The watch has a timer only while there are connections, and is gentle with the times."""
        site, port = await self.site(clock=self.clock, timeout_seconds=4)
        self.served = site
        self.assertEqual(self.clock.getDelayedCalls(), [])
        client = await self.client(port)
        while not site.channels:
            await turns(1)
        self.assertEqual(min(call.getTime() for call in self.clock.getDelayedCalls()), 1)
        client.close()
        while site.channels:
            await turns(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsInstance(site._stalls, StallWatch)
