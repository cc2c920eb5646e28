"""Converted calls and the connections on both sides: how they break, what becomes of them, whose they are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.web.client import Agent, HTTPConnectionPool

from stream_proxy import Limits, ProxyResource
from stream_proxy.error_codes import ErrorCode
from stream_proxy.request_log import RequestLog
from stream_proxy.upstream.response import DRAIN_SECONDS
from tests.support.certificates import server_context, trust
from tests.support.loopback import LoopbackTestCase, reactor, turns
from tests.support.payloads import CHAT, CHAT_BODY, DONE, HELLO, RESPONSES, RESPONSES_BODY, chunk, event
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

START = chunk({"role": "assistant", "content": "Hel"})
RESPONSE = event({"type": "response.completed", "response": {"id": "r", "output": [1]}})
CREATED = event({"type": "response.created", "response": {"id": "r"}})


def framed(data: bytes) -> bytes:
    """`data` as a chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ConnectionTestCase(LoopbackTestCase):
    """A proxy that can be looked into."""

    async def resource(self, url: str, **kwargs: Any) -> tuple[ProxyResource, int]:
        """Start a proxy; its resource and its port."""
        made: list[ProxyResource] = []

        def make(*args: Any, **more: Any) -> ProxyResource:
            made.append(ProxyResource(*args, **more))
            return made[0]

        port = await self.proxy(url, resource=make, **kwargs)
        return made[0], port

    def assert_hello(self, response: Message) -> None:
        """It is the chat completion that `HELLO` makes."""
        self.assertEqual(response.status, 200, response.body)
        self.assertEqual(response.json()["choices"][0]["message"]["content"], "Hello")

    def assert_error(self, response: Message, code: ErrorCode, words: str = "") -> None:
        """Check that it is this error in OpenAI's envelope, on a connection that can go on."""
        self.assertEqual(response.status, code.status, response.body)
        self.assertTrue(response.complete)
        self.assertEqual(response.get("content-type"), "application/json")
        error = response.json()["error"]
        self.assertEqual((error["type"], error["code"], error["param"]), (code.type, code.code, None))
        self.assertIn(words, error["message"])


class BreakTests(ConnectionTestCase):
    """An upstream that breaks off is an error or an answer, and never asked again."""

    async def broken(
        self, data: bytes, way: Callable[[Stream], None], target: str = CHAT
    ) -> tuple[Message, int]:
        """The answer of an upstream that sends `data` and is gone, and how often it was asked."""
        asked = 0

        async def script(stream: Stream) -> None:
            nonlocal asked
            await read_request(stream)
            asked += 1
            stream.write(data)
            await turns(2)
            way(stream)

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        body = RESPONSES_BODY if target == RESPONSES else CHAT_BODY
        return await self.request(port, target=target, body=body), asked

    async def test_incomplete(self) -> None:
        """Wherever a stream breaks off before its terminal event, orderly or not, it is a 502."""
        begin = event_stream_head()
        sized = head(200, [("Content-Type", "text/event-stream"), ("Content-Length", "9999")])
        unframed = head(200, [("Content-Type", "text/event-stream")])
        packed = head(200, [("Content-Type", "text/event-stream"), ("Content-Encoding", "gzip")])
        finished = framed(chunk({"content": "Hello"}, "stop"))
        for data in (
            b"",
            b"HT",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n",
            begin,
            begin + b"4",
            begin + framed(START)[:20],
            begin + framed(START),
            begin + finished,
            begin + finished + framed(b"data: [DO"),
            sized,
            sized + START,
            sized + chunk({"content": "Hello"}, "stop"),
            unframed,
            unframed + START,
            packed + gzip.compress(START)[:-20],
        ):
            for way in (Stream.close, Stream.abort):
                response, asked = await self.broken(data, way)
                until_close = way is Stream.close and data.startswith((unframed, packed))
                self.assert_error(
                    response, ErrorCode.UPSTREAM_INCOMPLETE if until_close else ErrorCode.UPSTREAM_CUT
                )
                self.assertEqual(asked, 1, data)

    async def test_incomplete_response(self) -> None:
        """The same holds for Responses, where only a terminal event makes an answer."""
        begin = event_stream_head()
        for data in (b"", begin, begin + framed(CREATED), begin + framed(CREATED) + b"0\r\n\r\n"):
            response, asked = await self.broken(data, Stream.close, RESPONSES)
            whole = data.endswith(b"0\r\n\r\n")
            self.assert_error(response, ErrorCode.UPSTREAM_INCOMPLETE if whole else ErrorCode.UPSTREAM_CUT)
            self.assertEqual(asked, 1, data)

    async def test_complete(self) -> None:
        """What breaks off after the terminal event is complete."""
        sized = head(200, [("Content-Type", "text/event-stream"), ("Content-Length", "9999")])
        for begin, frame in ((event_stream_head(), framed), (sized, bytes)):
            for way in (Stream.close, Stream.abort):
                response, _ = await self.broken(begin + frame(HELLO), way)
                self.assert_hello(response)
                response, _ = await self.broken(begin + frame(RESPONSE), way, RESPONSES)
                self.assertEqual((response.status, response.json()), (200, {"id": "r", "output": [1]}))

    async def test_until_close(self) -> None:
        """A body that lasts until its connection closes is whole after a close, not after a reset."""
        data = head(200, [("Content-Type", "text/event-stream")]) + HELLO.removesuffix(DONE)
        self.assert_hello((await self.broken(data, Stream.close))[0])
        self.assert_error((await self.broken(data, Stream.abort))[0], ErrorCode.UPSTREAM_CUT)

    async def test_broken_before_it_is_clear(self) -> None:
        """What breaks off before it is clear what it is, is a 502."""
        for start in (
            head(400, [("Content-Type", "application/json"), ("Content-Length", "50")]) + b'{"half":',
            head(200, [("Content-Type", "application/json"), ("Content-Length", "50")]) + b" ",
            head(200, [("Content-Type", "text/event-stream"), ("Content-Length", "50")]) + b"da",
            head(200, [("Content-Length", "50")]),
        ):
            response, asked = await self.broken(start, Stream.close)
            self.assert_error(response, ErrorCode.UPSTREAM_CUT, "broke")
            self.assertEqual(asked, 1)

    async def test_broken_json(self) -> None:
        """Plain JSON that breaks off does not reach the client as if it were whole."""
        begin = head(200, [("Content-Type", "application/json"), ("Content-Length", "50")])
        response, asked = await self.broken(begin + b'{"half":', Stream.close)
        self.assertEqual((response.status, response.complete, asked), (200, False, 1))

    async def test_invalid_response(self) -> None:
        """What is no HTTP is a 502 that says so."""
        for data in (b"nonsense\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n"):
            response, asked = await self.broken(data, Stream.close)
            self.assert_error(response, ErrorCode.UPSTREAM_MALFORMED, "invalid HTTP response")
            self.assertEqual(asked, 1)
        begin = event_stream_head()
        response, _ = await self.broken(begin + framed(START) + b"zz\r\nno chunk\r\n", Stream.close)
        self.assert_error(response, ErrorCode.UPSTREAM_CUT)

    async def test_refused(self) -> None:
        """An upstream that does not listen is a 502."""
        listening = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        port = listening.getHost().port
        await listening.stopListening()
        proxy = await self.proxy(f"http://127.0.0.1:{port}")
        response = await self.request(proxy, body=CHAT_BODY)
        self.assert_error(response, ErrorCode.UPSTREAM_REFUSED, "refused the connection")

    async def test_tls(self) -> None:
        """A certificate that is not trusted is a 502; a handshake that does not end is a 504."""

        async def silent(stream: Stream) -> None:
            await stream.rest()

        upstream = await self.upstream(silent, server_context("127.0.0.1"))
        response = await self.request(await self.proxy(upstream.url), body=CHAT_BODY)
        self.assert_error(response, ErrorCode.UPSTREAM_TLS, "TLS")
        upstream = await self.upstream(silent)
        port = await self.proxy(upstream.url.replace("http:", "https:"), limits=Limits(connect_seconds=0.1))
        self.assert_error(await self.request(port, body=CHAT_BODY), ErrorCode.UPSTREAM_TIMEOUT, "reached")
        await upstream.connections[0].gone()


class SilenceTests(ConnectionTestCase):
    """``timeoutSeconds`` is about silence."""

    async def test_moving(self) -> None:
        """A stream that moves is not cut, however long it takes; comments count as well as events."""
        pieces = [START, b": ping\n\n", b"\n", chunk({"content": "lo"}, "stop")]
        begun: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            begun.callback(stream)
            await stream.rest()

        upstream = await self.upstream(script)
        resource, port = await self.resource(upstream.url)
        clock = resource.clock = Clock()
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY)
        stream = await begun
        clock.advance(599)
        await self.moved(clock, lambda: stream.write(event_stream_head()))
        clock.advance(599)
        for piece in pieces:
            await self.moved(clock, lambda piece=piece: stream.chunk(piece))  # type: ignore[misc]
            clock.advance(599)
        clock.advance(1)
        self.assert_error(await read_response(client), ErrorCode.UPSTREAM_TIMEOUT, "600 seconds")
        await stream.gone()

    async def moved(self, clock: Clock, move: Callable[[], None]) -> None:
        """`move` has been noticed: the one timer was put off."""
        (call,) = clock.getDelayedCalls()
        move()
        while call.getTime() < clock.seconds() + 600:
            await turns(1)

    async def test_before_the_head(self) -> None:
        """An upstream that takes the call and says nothing is a 504, and let go."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            asked.callback(None)
            await stream.rest()

        asked: Deferred[None] = Deferred()
        upstream = await self.upstream(script)
        resource, port = await self.resource(upstream.url)
        clock = resource.clock = Clock()
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY)
        await asked
        clock.advance(600)
        self.assert_error(await read_response(client), ErrorCode.UPSTREAM_TIMEOUT, "timeoutSeconds")
        await upstream.connections[0].gone()
        self.assertEqual(clock.getDelayedCalls(), [])


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
