"""Clients of converted calls: how they send them, and how they leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred

from stream_proxy.request_log import RequestLog
from tests.support.certificates import server_context, trust
from tests.support.conversion import START, InspectedTestCase, framed
from tests.support.loopback import turns
from tests.support.payloads import CHAT, CHAT_BODY, HELLO, event
from tests.support.wire import (
    Message,
    Stream,
    event_stream_head,
    read_request,
    read_response,
    respond,
    send_request,
)


class GoneTests(InspectedTestCase):
    """A client that disconnects ends its upstream call at once."""

    async def assert_cancelled(self, data: bytes, leave: Callable[[Stream], None], tls: Any = None) -> None:
        """Let the client leave after the upstream has sent `data`; the upstream's connection must end."""
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
        """A close, a reset and a half-close; before the head, after it and inside the stream."""
        begin = event_stream_head()
        for data in (b"", begin, begin + framed(START)):
            for leave in (Stream.close, Stream.abort, lambda client: client.transport.loseWriteConnection()):
                await self.assert_cancelled(data, leave)

    async def test_gone_over_tls(self) -> None:
        """The same over TLS, where the upstream does not answer the close."""
        trust(self)
        begin = event_stream_head()
        for data in (b"", begin + framed(START)):
            await self.assert_cancelled(data, Stream.close, server_context("127.0.0.1"))

    async def test_gone_in_the_upload(self) -> None:
        """A client that leaves before its call is complete causes no upstream connection."""

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
        client.write(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode())
        client.write(b"Content-Length: 99\r\n\r\n{")
        await turns()
        client.close()
        await logged
        self.assertEqual(([entry["status"] for entry in events], upstream.connections), ([499], []))

    async def test_gone_in_the_second_attempt(self) -> None:
        """A client that leaves during the second attempt, of either kind, ends that attempt."""
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


class ClientTests(InspectedTestCase):
    """Ways in which clients send calls."""

    async def answering(self) -> int:
        """Start a proxy in front of an upstream that streams `HELLO` and lists models; return its port."""

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
        """The proxy answers ``Expect: 100-continue`` itself and does not forward it."""
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
        """A call may arrive in chunks of any size; it is forwarded with a length."""
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
        """Converted and relayed requests, pipelined or not, share a client's connection."""
        client = await self.client(await self.answering())
        for _ in range(2):
            send_request(client, "POST", CHAT, CHAT_BODY)
            send_request(client, "GET", "/v1/models")
            send_request(client, "POST", CHAT, CHAT_BODY)
            self.assert_hello(await read_response(client))
            self.assertEqual((await read_response(client)).body, b"models")
            self.assert_hello(await read_response(client))

    async def test_connection_close(self) -> None:
        """A client that asks for a close gets its response and then the close."""
        client = await self.client(await self.answering())
        send_request(client, "POST", CHAT, CHAT_BODY, [("Connection", "x, Close")])
        response = await read_response(client)
        self.assert_hello(response)
        self.assertEqual(response.all("connection"), ["close"])
        self.assertEqual(await client.rest(), b"")

    async def test_after_an_error(self) -> None:
        """After a failed call the connection accepts the next one."""
        responses = iter((event({"error": "m"}), START, HELLO))

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                stream.write(event_stream_head())
                stream.chunk(next(responses))
                stream.chunk(b"")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        for status in (502, 502, 200):
            send_request(client, "POST", CHAT, CHAT_BODY)
            self.assertEqual((await read_response(client)).status, status)
