"""Upstreams of converted calls that break off, fall silent or cannot be reached."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from stream_proxy import Limits
from stream_proxy.error_codes import ErrorCode
from tests.support.certificates import server_context
from tests.support.conversion import START, InspectedTestCase, framed
from tests.support.loopback import reactor, turns
from tests.support.movements import Movements
from tests.support.payloads import CHAT, CHAT_BODY, DONE, HELLO, RESPONSES, RESPONSES_BODY, chunk, event
from tests.support.wire import (
    Message,
    Stream,
    event_stream_head,
    head,
    read_request,
    read_response,
    send_request,
)

RESPONSE = event({"type": "response.completed", "response": {"id": "r", "output": [1]}})


CREATED = event({"type": "response.created", "response": {"id": "r"}})


class BreakTests(InspectedTestCase):
    """Upstreams that break off: an error, or a response if it was complete, and never a second attempt."""

    async def broken(
        self, data: bytes, way: Callable[[Stream], None], target: str = CHAT
    ) -> tuple[Message, int]:
        """Return the response when the upstream sends `data` and leaves, and the number of requests."""
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
        """A stream that breaks off before its terminal event, in order or not, is a 502."""
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
        """The same holds for Responses, where only a terminal event completes a response."""
        begin = event_stream_head()
        for data in (b"", begin, begin + framed(CREATED), begin + framed(CREATED) + b"0\r\n\r\n"):
            response, asked = await self.broken(data, Stream.close, RESPONSES)
            whole = data.endswith(b"0\r\n\r\n")
            self.assert_error(response, ErrorCode.UPSTREAM_INCOMPLETE if whole else ErrorCode.UPSTREAM_CUT)
            self.assertEqual(asked, 1, data)

    async def test_complete(self) -> None:
        """A stream that breaks off after the terminal event is complete."""
        sized = head(200, [("Content-Type", "text/event-stream"), ("Content-Length", "9999")])
        for begin, frame in ((event_stream_head(), framed), (sized, bytes)):
            for way in (Stream.close, Stream.abort):
                response, _ = await self.broken(begin + frame(HELLO), way)
                self.assert_hello(response)
                response, _ = await self.broken(begin + frame(RESPONSE), way, RESPONSES)
                self.assertEqual((response.status, response.json()), (200, {"id": "r", "output": [1]}))

    async def test_until_close(self) -> None:
        """A close-delimited body is complete after a close, but not after a reset."""
        data = head(200, [("Content-Type", "text/event-stream")]) + HELLO.removesuffix(DONE)
        self.assert_hello((await self.broken(data, Stream.close))[0])
        self.assert_error((await self.broken(data, Stream.abort))[0], ErrorCode.UPSTREAM_CUT)

    async def test_broken_before_it_is_clear(self) -> None:
        """A response that breaks off before its kind is known is a 502."""
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
        """Plain JSON that breaks off does not look complete to the client."""
        begin = head(200, [("Content-Type", "application/json"), ("Content-Length", "50")])
        response, asked = await self.broken(begin + b'{"half":', Stream.close)
        self.assertEqual((response.status, response.complete, asked), (200, False, 1))

    async def test_invalid_response(self) -> None:
        """A response that is not HTTP is a 502 that says so."""
        for data in (b"nonsense\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n"):
            response, asked = await self.broken(data, Stream.close)
            self.assert_error(response, ErrorCode.UPSTREAM_MALFORMED, "invalid HTTP response")
            self.assertEqual(asked, 1)
        begin = event_stream_head()
        response, _ = await self.broken(begin + framed(START) + b"zz\r\nno chunk\r\n", Stream.close)
        self.assert_error(response, ErrorCode.UPSTREAM_CUT)

    async def test_refused(self) -> None:
        """An upstream that refuses the connection is a 502."""
        listening = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        port = listening.getHost().port
        await listening.stopListening()
        proxy = await self.proxy(f"http://127.0.0.1:{port}")
        response = await self.request(proxy, body=CHAT_BODY)
        self.assert_error(response, ErrorCode.UPSTREAM_REFUSED, "refused the connection")

    async def test_tls(self) -> None:
        """An untrusted certificate is a 502; a handshake that does not finish is a 504."""

        async def silent(stream: Stream) -> None:
            await stream.rest()

        upstream = await self.upstream(silent, server_context("127.0.0.1"))
        response = await self.request(await self.proxy(upstream.url), body=CHAT_BODY)
        self.assert_error(response, ErrorCode.UPSTREAM_TLS, "TLS")
        upstream = await self.upstream(silent)
        port = await self.proxy(upstream.url.replace("http:", "https:"), limits=Limits(connect_seconds=0.1))
        self.assert_error(await self.request(port, body=CHAT_BODY), ErrorCode.UPSTREAM_TIMEOUT, "reached")
        await upstream.connections[0].gone()


class SilenceTests(InspectedTestCase):
    """``timeoutSeconds`` bounds silence, not the whole call."""

    async def test_moving(self) -> None:
        """A stream that keeps moving is never cut off; comments count as well as events."""
        pieces = [START, b": ping\n\n", b"\n", chunk({"content": "lo"}, "stop")]
        begun: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            begun.callback(stream)
            await stream.rest()

        movements = Movements(self)
        upstream = await self.upstream(script)
        resource, port = await self.resource(upstream.url, limits=Limits(keep_alive_seconds=0))
        clock = resource.clock = Clock()
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY)
        stream = await begun
        clock.advance(599)
        stream.write(event_stream_head())
        await movements.now(clock)
        clock.advance(599)
        for piece in pieces:
            stream.chunk(piece)
            await movements.now(clock)
            clock.advance(599)
        clock.advance(1)
        self.assert_error(await read_response(client), ErrorCode.UPSTREAM_TIMEOUT, "600 seconds")
        await stream.gone()

    async def test_before_the_head(self) -> None:
        """An upstream that accepts the call and stays silent is a 504, and its connection is dropped."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            asked.callback(None)
            await stream.rest()

        asked: Deferred[None] = Deferred()
        upstream = await self.upstream(script)
        resource, port = await self.resource(upstream.url, limits=Limits(keep_alive_seconds=0))
        clock = resource.clock = Clock()
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY)
        await asked
        clock.advance(600)
        self.assert_error(await read_response(client), ErrorCode.UPSTREAM_TIMEOUT, "timeoutSeconds")
        await upstream.connections[0].gone()
        self.assertEqual(clock.getDelayedCalls(), [])
