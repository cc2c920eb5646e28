"""Upstream connections of converted calls: drained, dropped or reused, and who owns them."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.client import Agent, HTTPConnectionPool

from stream_proxy.upstream.response import DRAIN_SECONDS
from tests.support.conversion import START, InspectedTestCase, framed
from tests.support.loopback import reactor, turns
from tests.support.payloads import CHAT, CHAT_BODY, HELLO, event
from tests.support.wire import Stream, event_stream_head, head, read_request, respond, send_request


class AfterwardsTests(InspectedTestCase):
    """The upstream's connection after the client has its response."""

    async def test_body_that_stays_open(self) -> None:
        """A body that has not ended a second later is dropped, and what still arrives of it is ignored."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(HELLO)
            await stream.rest()

        upstream = await self.upstream(script)
        resource, port = await self.resource(upstream.url)
        clock = resource.upstream._connections.clock = Clock()
        self.assert_hello(await self.request(port, body=CHAT_BODY))
        stream = upstream.connections[0]
        stream.chunk(b"data: {oops\n\n")
        clock.advance(DRAIN_SECONDS - 0.1)
        await turns()
        self.assertIs(stream.lost, None)
        clock.advance(0.1)
        await stream.gone()

    async def test_refusal_that_stays_open(self) -> None:
        """A refusal that stays open is dropped too; the second attempt does not wait for its end."""
        for refused in ("stream_options", "stream"):

            async def script(stream: Stream, refused: str = refused) -> None:
                if refused in (await read_request(stream)).json():
                    stream.write(head(400, [("Transfer-Encoding", "chunked")]))
                    stream.chunk(json.dumps({"error": {"param": refused}}).encode() + b" " * 70_000)
                    await stream.rest()
                else:
                    respond(stream, 200, b'{"passed": true}')

            upstream = await self.upstream(script)
            resource, port = await self.resource(upstream.url)
            clock = resource.upstream._connections.clock = Clock()
            self.assertEqual((await self.request(port, body=CHAT_BODY)).json(), {"passed": True})
            clock.advance(DRAIN_SECONDS)
            await upstream.connections[0].gone()
            self.assertEqual([stream.lost for stream in upstream.connections[1:]], [None])

    async def test_error_in_the_stream(self) -> None:
        """After an error in the stream, the connection is dropped at once."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(event({"error": {"message": "m", "code": 500}}))
            await stream.rest()

        upstream = await self.upstream(script)
        self.assertEqual((await self.request(await self.proxy(upstream.url), body=CHAT_BODY)).status, 500)
        await upstream.connections[0].gone()

    async def test_close_of_the_resource(self) -> None:
        """Closing the resource drops bodies that are still being drained."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(HELLO)
            await stream.rest()

        upstream = await self.upstream(script)
        resource, port = await self.resource(upstream.url)
        self.assert_hello(await self.request(port, body=CHAT_BODY))
        await resource.close()
        await upstream.connections[0].gone()

    async def test_connection_close(self) -> None:
        """A connection that the upstream announced it would close is not reused."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head([("Connection", "x, Close")]))
            stream.chunk(HELLO)
            stream.chunk(b"")
            await stream.rest()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        for count in (1, 2):
            self.assert_hello(await self.request(port, body=CHAT_BODY))
            self.assertEqual(len(upstream.connections), count)


class OwnershipTests(InspectedTestCase):
    """An agent or a pool passed in is used, and left open."""

    async def test_given(self) -> None:
        """Calls are converted through either; closing the resource leaves its connections open."""

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                stream.write(event_stream_head([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]))
                stream.chunk(HELLO)
                stream.chunk(b"")

        for name in ("agent", "pool"):
            upstream = await self.upstream(script)
            pool = HTTPConnectionPool(reactor)
            given: Any = pool if name == "pool" else Agent(reactor, pool=pool)
            resource, port = await self.resource(upstream.url, **{name: given})
            for _ in range(2):
                response = await self.request(port, body=CHAT_BODY)
                self.assert_hello(response)
                self.assertEqual(response.all("set-cookie"), ["a=1", "b=2"])
            await resource.close()
            await turns()
            self.assertEqual([stream.lost for stream in upstream.connections], [None])
            self.assertEqual(sum(map(len, pool._connections.values())), 1)
            await pool.closeCachedConnections()

    async def test_agent_gone(self) -> None:
        """A client that leaves also ends a call made through a given agent, before and after the head."""
        for data in (b"", event_stream_head() + framed(START)):
            asked: Deferred[None] = Deferred()

            async def script(stream: Stream, data: bytes = data, asked: Deferred[None] = asked) -> None:
                await read_request(stream)
                stream.write(data)
                asked.callback(None)
                await stream.rest()

            upstream = await self.upstream(script)
            port = await self.proxy(upstream.url, agent=Agent(reactor))
            client = await self.client(port)
            send_request(client, "POST", CHAT, CHAT_BODY)
            await asked
            await turns()
            client.close()
            await upstream.connections[0].gone()
