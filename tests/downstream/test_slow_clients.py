"""Slow clients, in every flow: served however long they take."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred

from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.downstream import stall
from stream_proxy.downstream.stall import Outbox, StallWatch
from tests.support.flood import MIB, Pour, numbered, small_buffers
from tests.support.loopback import turns
from tests.support.payloads import DONE, event
from tests.support.sessions import BINARY, HANDSHAKE, accepted, frame, handshake
from tests.support.stalls import ASK, EVENTS, LARGE, NOTHING, StallTestCase, call, stands_still
from tests.support.wire import (
    GET,
    Stream,
    event_stream_head,
    head,
    read_head,
    read_request,
    read_response,
    respond,
)


class SlowTests(StallTestCase):
    """Clients that read a little now and then are not disconnected."""

    async def still_there(self, client: Stream, each: Callable[[], Awaitable[object]]) -> None:
        """Let a long time pass, with a little progress in between; the client must still be connected."""
        await self.stuck()
        for _ in range(8):
            await self.passes(500)
            await each()
            await self.stuck()  # a kernel that took all of it gets more
        self.assertTrue(self.served.channels)
        self.assertEqual([line for line in self.log.lines if NOTHING in line], [])
        client.transport.resumeProducing()

    async def test_converted(self) -> None:
        """A converted response arrives in full, even if that takes longer than the idle timeout."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 200, LARGE, EVENTS)

        client = await self.deaf(await self.between(script), call())
        await self.still_there(client, lambda: self.takes_something(client))
        response = await read_response(client)
        self.assertEqual((response.complete, len(response.body) > 16 * MIB), (True, True))

    async def test_relayed(self) -> None:
        """A relayed response, whose upstream is paused for longer than ``timeoutSeconds``."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(200, [("Content-Length", str(16 * MIB))]))
            Pour(stream, numbered(16 * MIB))

        client = await self.deaf(await self.between(script), GET)
        await self.still_there(client, lambda: self.takes_something(client))
        self.assertTrue((await read_response(client)).complete)

    async def test_adapter(self) -> None:
        """A stream that the adapter produces."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(200, EVENTS))
            Pour(stream, [event({"text": "x" * 60_000})] * 200, stream.close)

        port = await self.between(script, AdapterResource)
        client = await self.deaf(port, call({**ASK, "stream": True}))
        await self.still_there(client, lambda: self.takes_something(client))
        response = await read_response(client)
        self.assertEqual((response.complete, response.body.endswith(DONE)), (True, True))

    async def test_silent_upstream(self) -> None:
        """A client that keeps reading does not excuse a silent upstream that was not paused."""

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
        """A slow WebSocket client also gets the messages sent before the upstream left."""
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
    """`Outbox` and `StallWatch` on their own."""

    async def test_kernel(self) -> None:
        """Bytes that the peer's kernel has acknowledged count, even before our kernel asks for more."""
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
        connection.stopWriting()  # as if the kernel asked late
        held = stall._unacknowledged(connection)
        client.transport.resumeProducing()
        while stall._unacknowledged(connection) == held:
            await turns(1)
        self.assertEqual(outbox._given, given)
        self.assertEqual(outbox.stalled(700), 0)

    def test_no_connection(self) -> None:
        """An object that is not a TCP connection never has bytes waiting."""
        outbox = Outbox(object())
        self.assertEqual((outbox.waiting, outbox.stalled(10)), (False, 0))

    async def test_timer(self) -> None:
        """The watch has a timer only while there are connections, and looks rarely."""
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
