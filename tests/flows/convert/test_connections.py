"""Connections of converted calls: what becomes of them on both legs, and who owns them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.client import Agent, HTTPConnectionPool

from stream_proxy.request_log import RequestLog
from stream_proxy.upstream.response import DRAIN_SECONDS
from tests.support.certificates import server_context, trust
from tests.support.conversion import START, ConnectionTestCase, framed
from tests.support.loopback import reactor, turns
from tests.support.payloads import CHAT, CHAT_BODY, HELLO, event
from tests.support.wire import (
    Message,
    Stream,
    event_stream_head,
    head,
    read_request,
    read_response,
    respond,
    send_request,
)


class AfterwardsTests(ConnectionTestCase):
    """What becomes of the upstream's connection once the client has its answer."""

    async def test_body_that_stays_open(self) -> None:
        """A body that has not ended after a second is dropped, and what still came of it ignored."""

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
        """The same goes for a refusal, whose second attempt does not wait for its end."""
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
        """After an error there is nothing worth waiting for."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(event({"error": {"message": "m", "code": 500}}))
            await stream.rest()

        upstream = await self.upstream(script)
        self.assertEqual((await self.request(await self.proxy(upstream.url), body=CHAT_BODY)).status, 500)
        await upstream.connections[0].gone()

    async def test_close_of_the_resource(self) -> None:
        """Closing the resource drops what is still being read to its end."""

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
        """A connection that the upstream said it would close is not used again."""

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


class GoneTests(ConnectionTestCase):
    """A client that goes away takes its call with it, at once."""

    async def assert_cancelled(self, data: bytes, leave: Callable[[Stream], None], tls: Any = None) -> None:
        """The upstream, which has sent `data`, sees its connection end when the client leaves."""
        events: list[dict[str, Any]] = []
        log = RequestLog(observer=cast(Any, events.append))
        asked: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(data)
            asked.callback(None)
            await stream.rest()

        upstream = await self.upstream(script, tls)
        client = await self.client(await self.proxy(upstream.url, log=log))
        send_request(client, "POST", CHAT, CHAT_BODY)
        await asked
        await turns()
        leave(client)
        await upstream.connections[0].gone()
        self.assertEqual([entry["status"] for entry in events], [499])

    async def test_gone(self) -> None:
        """By a close, a reset or half a close; before the head, after it and inside the stream."""
        begin = event_stream_head()
        for data in (b"", begin, begin + framed(START)):
            for leave in (Stream.close, Stream.abort, lambda client: client.transport.loseWriteConnection()):
                await self.assert_cancelled(data, leave)

    async def test_gone_over_tls(self) -> None:
        """The same where the upstream speaks TLS, although it does not answer the close."""
        trust(self)
        begin = event_stream_head()
        for data in (b"", begin + framed(START)):
            await self.assert_cancelled(data, Stream.close, server_context("127.0.0.1"))

    async def test_gone_in_the_upload(self) -> None:
        """A client that leaves before its call is in costs the upstream nothing."""

        async def script(stream: Stream) -> None:
            await stream.rest()

        events: list[dict[str, Any]] = []
        logged: Deferred[None] = Deferred()

        def observe(entry: dict[str, Any]) -> None:
            events.append(entry)
            logged.callback(None)

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, log=RequestLog(observer=cast(Any, observe)))
        client = await self.client(port)
        client.write(f"POST {CHAT} HTTP/1.1\r\nContent-Type: application/json\r\n".encode())
        client.write(b"Content-Length: 99\r\n\r\n{")
        await turns()
        client.close()
        await logged
        self.assertEqual(([entry["status"] for entry in events], upstream.connections), ([499], []))

    async def test_gone_in_the_second_attempt(self) -> None:
        """A client that leaves during the second attempt, of either kind, ends that one."""
        for refused in ("stream_options", "stream"):
            again: Deferred[Stream] = Deferred()

            async def script(stream: Stream, refused: str = refused, again: Deferred[Stream] = again) -> None:
                while True:
                    request = await read_request(stream)
                    if refused in request.json():
                        respond(stream, 400, json.dumps({"error": {"param": refused}}).encode())
                    else:
                        again.callback(stream)

            upstream = await self.upstream(script)
            client = await self.client(await self.proxy(upstream.url))
            send_request(client, "POST", CHAT, CHAT_BODY)
            stream = await again
            client.close()
            await stream.gone()


class ClientTests(ConnectionTestCase):
    """The ways in which clients send calls."""

    async def answering(self) -> int:
        """A proxy in front of an upstream that streams `HELLO`, and lists models."""

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                self.asked.append(request)
                if request.method == "POST":
                    stream.write(event_stream_head())
                    stream.chunk(HELLO)
                    stream.chunk(b"")
                else:
                    respond(stream, 200, b"models")

        self.asked: list[Message] = []
        upstream = await self.upstream(script)
        return await self.proxy(upstream.url)

    async def test_expect(self) -> None:
        """``Expect: 100-continue`` is answered by the proxy and goes no further."""
        client = await self.client(await self.answering())
        body = json.dumps(CHAT_BODY).encode()
        lines = (
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        client.write(lines.encode())
        self.assertEqual(await client.until(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.write(body)
        self.assert_hello(await read_response(client))
        self.assertEqual(self.asked[0].all("expect"), [])

    async def test_chunked(self) -> None:
        """A call may come in chunks, however small; it goes on with its length."""
        client = await self.client(await self.answering())
        client.write(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode())
        client.write(b"Transfer-Encoding: chunked\r\n\r\n")
        for byte in json.dumps(CHAT_BODY).encode():
            client.chunk(bytes([byte]))
        client.chunk(b"")
        self.assert_hello(await read_response(client))
        self.assertEqual(self.asked[0].all("transfer-encoding"), [])
        self.assertEqual(self.asked[0].all("content-length"), [str(len(self.asked[0].body))])

    async def test_one_connection(self) -> None:
        """Converted and passed requests, sent at once or in turn, share a client's connection."""
        client = await self.client(await self.answering())
        for _ in range(2):
            send_request(client, "POST", CHAT, CHAT_BODY)
            send_request(client, "GET", "/v1/models")
            send_request(client, "POST", CHAT, CHAT_BODY)
            self.assert_hello(await read_response(client))
            self.assertEqual((await read_response(client)).body, b"models")
            self.assert_hello(await read_response(client))

    async def test_connection_close(self) -> None:
        """A client that asks for it gets its answer and then the end of its connection."""
        client = await self.client(await self.answering())
        send_request(client, "POST", CHAT, CHAT_BODY, [("Connection", "x, Close")])
        response = await read_response(client)
        self.assert_hello(response)
        self.assertEqual(response.all("connection"), ["close"])
        self.assertEqual(await client.rest(), b"")

    async def test_after_an_error(self) -> None:
        """A call that failed leaves its connection fit for the next one."""
        answers = iter((event({"error": "m"}), START, HELLO))

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                stream.write(event_stream_head())
                stream.chunk(next(answers))
                stream.chunk(b"")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        for status in (502, 502, 200):
            send_request(client, "POST", CHAT, CHAT_BODY)
            self.assertEqual((await read_response(client)).status, status)


class OwnershipTests(ConnectionTestCase):
    """An agent or a pool that was given is used, and stays its owner's."""

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
        """A client that leaves ends the call of a given agent, too, before the head and after it."""
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
