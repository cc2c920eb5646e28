"""Tests of the HTTP client: the errors of upstreams that fail, and the requests that are sent again."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import _sslverify
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web import _newclient
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    _HTTP11ClientFactory,
    _RetryingHTTP11ClientProtocol,
)
from zope.interface import implementer

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError
from stream_proxy.flows.resource import ProxyResource
from stream_proxy.http.url import parse_upstream_url
from stream_proxy.limits import Limits
from stream_proxy.upstream.client import Upstream
from stream_proxy.upstream.response import UpstreamResponse
from stream_proxy.upstream.twisted_client.connection import TwistedConnection
from tests.support.certificates import server_context, trust
from tests.support.flood import MIB, Pour, numbered
from tests.support.loopback import LoopbackTestCase, Script, reactor, turns
from tests.support.payloads import CHAT
from tests.support.sessions import handshake
from tests.support.wire import (
    Message,
    Stream,
    event_stream_head,
    read_head,
    read_request,
    read_response,
    respond,
)

STREAMING = {"model": "m", "stream": True}
#: Beginnings of a server that speaks nothing but HTTP/2, as seen by a client that does not.
SETTINGS = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"
GOAWAY = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + bytes(7) + b"\x01"


class UpstreamTestCase(LoopbackTestCase):
    """Tests that need the internals of the proxy that they start."""

    async def proxy_resource(self, url: str, **kwargs: Any) -> tuple[ProxyResource, int]:
        """Start a proxy, and return its resource and port."""
        made: list[ProxyResource] = []

        def make(*args: Any, **more: Any) -> ProxyResource:
            resource = ProxyResource(*args, **more)
            made.append(resource)
            return resource

        port = await self.proxy(url, resource=make, **kwargs)
        return made[0], port

    def assert_error(self, answer: Message, code: ErrorCode, *words: str) -> None:
        """Check that `answer` is this error in OpenAI's form, and that its message holds these words."""
        self.assertEqual(answer.status, code.status, answer.body)
        error = answer.json()["error"]
        self.assertEqual((error["type"], error["code"], error["param"]), (code.type, code.code, None))
        for word in words:
            self.assertIn(word, error["message"])

    async def failed(self, script: Script, code: ErrorCode, *words: str) -> Message:
        """Check the error that a client gets for an upstream with this script, and return the response."""
        upstream = await self.upstream(script)
        answer = await self.request(await self.proxy(upstream.url), "GET", "/v1/x")
        self.assert_error(answer, code, f"http://127.0.0.1:{upstream.port}", *words)
        for connection in upstream.connections:
            await connection.gone()
        return answer


class UnreachableTests(UpstreamTestCase):
    """Upstreams that cannot be reached: a 502 with the reason, or a 504 for a slow one."""

    async def test_refused(self) -> None:
        """An upstream that does not listen."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            answer = await self.request(await self.proxy(f"http://127.0.0.1:{port}"), "GET", "/v1/x")
        self.assert_error(answer, ErrorCode.UPSTREAM_REFUSED, f"127.0.0.1:{port} refused", "upstreamUrl")

    async def test_unknown_name(self) -> None:
        """A host name that does not resolve."""

        @implementer(IHostnameResolver)
        class Nobody:
            def resolveHostName(
                self,
                resolutionReceiver: Any,
                hostName: str,
                portNumber: int = 0,
                addressTypes: Any = None,
                transportSemantics: str = "TCP",
            ) -> Any:
                resolutionReceiver.resolutionBegan(None)
                resolutionReceiver.resolutionComplete()

        before = reactor.installNameResolver(Nobody())
        self.addCleanup(reactor.installNameResolver, before)
        # The client has to connect by address, since the resolver finds nothing.
        port = await self.proxy("http://api.example.invalid")
        stream = Stream()
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), stream)
        stream.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await read_response(stream, "GET")
        self.assert_error(answer, ErrorCode.UPSTREAM_DNS, "http://api.example.invalid was not found")
        await stream.gone()

    async def test_connect_limit(self) -> None:
        """DNS and TCP that take too long are given up."""
        given_up: list[None] = []

        class Endpoint:
            def connect(self, factory: object) -> Deferred[Any]:
                return Deferred(lambda _: given_up.append(None))

        clock = Clock()
        upstream = Upstream(reactor, parse_upstream_url("http://127.0.0.1:1"))
        upstream._connections.clock, upstream._connections.endpoint = clock, Endpoint()  # type: ignore[assignment]
        asking = upstream.request(b"GET", b"/", [], None)
        clock.advance(9.9)
        self.assertNoResult(asking)
        clock.advance(0.1)
        error = self.failureResultOf(asking, APIError).value
        self.assertEqual(
            (error.status, error.type, error.code), (504, "upstream_timeout", "upstream_timeout")
        )
        self.assertIn("within 10 seconds", error.message)
        self.assertEqual(given_up, [None])
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_handshake_counts(self) -> None:
        """The limit holds for the TLS handshake, too; the connection is dropped."""
        connected: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await stream.some()
            connected.callback(None)
            await stream.rest()

        server = await self.upstream(script)
        clock = Clock()
        upstream = Upstream(reactor, parse_upstream_url(f"https://127.0.0.1:{server.port}"))
        upstream._connections.clock = clock
        asking = upstream.request(b"GET", b"/", [], None)
        await connected
        clock.advance(10)
        self.assertEqual(self.failureResultOf(asking, APIError).value.status, 504)
        await server.connections[0].gone()

    async def test_limit_ends_with_the_connection(self) -> None:
        """Once the connection is there, the limit no longer counts."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            clock.advance(100)
            respond(stream, 200, b"")

        clock = Clock()
        server = await self.upstream(script)
        upstream = Upstream(reactor, parse_upstream_url(server.url))
        self.addCleanup(upstream.close)
        upstream._connections.clock = clock
        self.assertEqual((await upstream.request(b"GET", b"/", [], None)).status, 200)

    async def test_cancel_while_connecting(self) -> None:
        """A request that is cancelled in the handshake leaves nothing behind."""
        connected: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await stream.some()
            connected.callback(None)
            await stream.rest()

        server = await self.upstream(script)
        upstream = Upstream(reactor, parse_upstream_url(f"https://127.0.0.1:{server.port}"))
        asking = upstream.request(b"GET", b"/", [], None)
        await connected
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        await server.connections[0].gone()


class InvalidAnswerTests(UpstreamTestCase):
    """Invalid HTTP responses, each a 502 whose connection is dropped."""

    async def test_closed(self) -> None:
        """An upstream that closes or resets before it responds, on accept or after the request."""

        def script(way: Callable[[Stream], None], reading: bool) -> Script:
            async def run(stream: Stream) -> None:
                if reading:
                    await read_request(stream)
                way(stream)

            return run

        for way in (Stream.close, Stream.abort):
            for reading in (True, False):
                await self.failed(script(way, reading), ErrorCode.UPSTREAM_CUT, "closed the connection")

    async def test_closed_in_the_head(self) -> None:
        """An upstream that closes within the status line or the fields."""
        for start in (b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX"):

            async def script(stream: Stream, start: bytes = start) -> None:
                await read_request(stream)
                stream.write(start)
                stream.close()

            await self.failed(
                script, ErrorCode.UPSTREAM_CUT, "closed the connection before its answer was complete"
            )

    async def test_garbage(self) -> None:
        """An upstream that speaks another protocol, or malformed HTTP."""
        for data in (
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"HTTP/1.1 abc Hm\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/x.y 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ):

            async def script(stream: Stream, data: bytes = data) -> None:
                await read_request(stream)
                stream.write(data)
                await stream.rest()

            await self.failed(script, ErrorCode.UPSTREAM_MALFORMED, "sent an invalid HTTP response")

    async def test_first_bytes(self) -> None:
        """Bytes that begin no response are an error at once, although the connection stays open."""
        for data in (b"SSH-2.0", b"220 smtp", b"ICY 200 OK", b"\0", b"\r\n", b"<html>", b"http/1.1 200 OK"):

            async def script(stream: Stream, data: bytes = data) -> None:
                await read_request(stream)
                stream.write(data.ljust(16, b"\0"))
                await stream.rest()

            await self.failed(script, ErrorCode.UPSTREAM_MALFORMED, "sent an invalid HTTP response")

    async def test_other_protocols(self) -> None:
        """HTTP/2 and TLS are named, however their first bytes are split, and whether or not they close."""
        for data, words in (
            (SETTINGS, "speaks HTTP/2, but only HTTP/1.1 can be used with it; check upstreamUrl."),
            (GOAWAY, "speaks HTTP/2"),
            (b"\x15\x03\x01\x00\x02\x02\x46", "speaks TLS; use https:// in upstreamUrl."),
            (b"\x16\x03\x03\x00\x7a\x02\x00", "speaks TLS"),
        ):
            for end in (Stream.rest, Stream.close):
                for size in (len(data), 1):

                    async def script(
                        stream: Stream, data: bytes = data, size: int = size, end: Any = end
                    ) -> None:
                        await read_request(stream)
                        for start in range(0, len(data), size):
                            stream.write(data[start : start + size])
                            await turns(1 if size == 1 else 0)
                        if (waiting := end(stream)) is not None:
                            await waiting

                    await self.failed(script, ErrorCode.UPSTREAM_MALFORMED, words)

    async def test_other_protocols_for_websockets(self) -> None:
        """They are named to the client of a WebSocket, too."""
        for data, words in ((SETTINGS, "speaks HTTP/2"), (b"\x15\x03\x01\x00\x02\x02\x46", "use https://")):

            async def script(stream: Stream, data: bytes = data) -> None:
                await read_head(stream)
                stream.write(data)
                await stream.rest()

            upstream = await self.upstream(script)
            client = await self.client(await self.proxy(upstream.url))
            client.write(handshake())
            self.assert_error(await read_response(client), ErrorCode.UPSTREAM_MALFORMED, words)
            await upstream.connections[0].gone()

    async def test_endless_head(self) -> None:
        """A head that does not end in fields, one field, the status line, or 1xx: little of it is read."""
        for start, piece in (
            (b"HTTP/1.1 200 OK\r\n", b"X-Field: y\r\n"),
            (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
            (b"HTTP/1.1 ", b"2"),
            (b"", b"HTTP/1.1 103 Hint\r\n\r\n"),
        ):
            pours: list[Pour] = []

            async def script(
                stream: Stream, start: bytes = start, piece: bytes = piece, pours: list[Pour] = pours
            ) -> None:
                await read_request(stream)
                stream.write(start)
                pours.append(Pour(stream, [piece * (65536 // len(piece))] * 512))
                await stream.rest()

            await self.failed(script, ErrorCode.UPSTREAM_MALFORMED, "head that is too large")
            self.assertLess(pours[0].taken, 400)

    async def test_large_head(self) -> None:
        """A head of just under 64 KiB is relayed."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 200, b"ok", [("X", "y" * 65_000)])

        upstream = await self.upstream(script)
        answer = await self.request(await self.proxy(upstream.url), "GET", "/v1/x")
        self.assertEqual((answer.status, len(answer.get("x") or "")), (200, 65_000))

    async def test_large_body_with_the_head(self) -> None:
        """A small head in one piece with a large body is relayed."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 200, b"x" * 300_000)

        upstream = await self.upstream(script)
        answer = await self.request(await self.proxy(upstream.url), "GET", "/v1/x")
        self.assertEqual(len(answer.body), 300_000)

    async def test_garbage_over_tls(self) -> None:
        """Over TLS the connection is aborted, since the other side might never confirm a close."""
        trust(self)
        pours: list[Pour] = []

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.transport.pauseProducing()
            stream.write(b"garbage\r\n\r\n")
            pours.append(Pour(stream, numbered(64 * MIB)))
            await stream.rest()

        upstream = await self.upstream(script, server_context("127.0.0.1"))
        answer = await self.request(await self.proxy(upstream.url), "GET", "/v1/x")
        self.assert_error(answer, ErrorCode.UPSTREAM_MALFORMED, "invalid HTTP response")
        await upstream.connections[0].gone()
        self.assertLess(pours[0].taken, 1024)


class MovingTests(UpstreamTestCase):
    """``timeoutSeconds``, which limits silence and not duration."""

    async def test_moving(self) -> None:
        """A stream and an upload that move are never cut."""
        pieces = 5

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            for _ in range(pieces):
                await stream.until(b"up")
                arrived.pop().callback(None)
            stream.write(event_stream_head())
            for more in asked:
                stream.chunk(b"down")
                await more
            await stream.rest()

        arrived: list[Deferred[None]] = []
        asked: list[Deferred[None]] = [Deferred() for _ in range(pieces)]
        upstream = await self.upstream(script)
        resource, port = await self.proxy_resource(upstream.url)
        clock = resource.clock = Clock()
        client = await self.client(port)
        client.write(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        for _ in range(pieces):
            landed: Deferred[None] = Deferred()
            arrived.append(landed)
            client.write(b"up")
            await landed
            clock.advance(599)
        for more in asked:
            await client.until(b"down")
            clock.advance(599)
            more.callback(None)
        clock.advance(1)
        self.assertNotIn(b"0\r\n\r\n", await client.rest())


class StaleTests(UpstreamTestCase):
    """Connections that died while idle: the only reason to send a request twice."""

    async def twice(
        self,
        dies: Callable[[Stream], object],
        method: str = "GET",
        target: str = "/v1/x",
        body: object = None,
        clock: Clock | None = None,
        always: bool = False,
        first: bool = True,
    ) -> tuple[Message, list[Message]]:
        """Return the response to a request whose connection `dies` when it comes, and all such requests.

        :param always: so does every connection.
        :param first: another request went before it, on the same connection.
        """
        seen: list[Message] = []

        async def script(stream: Stream) -> None:
            request = await read_request(stream)
            if request.target == "/first":
                respond(stream, 200, b"")
                seen.append(await read_request(stream))
                dies(stream)
                return
            seen.append(request)
            if always or not first:
                dies(stream)
            else:
                respond(stream, 200, b"ok")

        upstream = await self.upstream(script)
        resource, port = await self.proxy_resource(upstream.url)
        if clock is not None:
            resource.upstream._connections.clock = clock
        if first:
            await self.request(port, "GET", "/first")
        answer = await self.request(port, method, target, body)
        return answer, seen

    async def test_resent(self) -> None:
        """A request without a body, and a held call, go out once more, unchanged, on a fresh connection."""
        for way in (Stream.close, Stream.abort):
            for method, target, body in (("GET", "/v1/x?a", None), ("POST", CHAT, STREAMING)):
                answer, seen = await self.twice(way, method, target, body)
                self.assertEqual((answer.status, answer.body), (200, b"ok"))
                self.assertEqual(len(seen), 2)
                self.assertEqual(seen[0], seen[1])

    async def test_closed_while_idle(self) -> None:
        """A connection that closed while it was idle is not used at all."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 200, b"ok")
            stream.close()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        for _ in range(2):
            self.assertEqual((await self.request(port, "POST", "/v1/x", b"up")).status, 200)
            await upstream.connections[-1].gone()
            await turns(10)

    async def test_bytes_while_idle(self) -> None:
        """A connection on which unexpected bytes came is not used at all."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 200, b"ok")
            await answered.pop()
            respond(stream, 408, b"")
            await stream.rest()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        for _ in range(2):
            done: Deferred[None] = Deferred()
            answered = [done]
            self.assertEqual((await self.request(port, "GET", "/v1/x")).status, 200)
            done.callback(None)
            await upstream.connections[-1].gone()

    async def test_answer_begun(self) -> None:
        """A request is not sent again after one byte of a response."""

        def dies(stream: Stream) -> None:
            stream.write(b"H")
            stream.close()

        answer, seen = await self.twice(dies)
        self.assert_error(answer, ErrorCode.UPSTREAM_CUT)
        self.assertEqual(len(seen), 1)

    async def test_fresh(self) -> None:
        """A request on a fresh connection is not sent again."""
        answer, seen = await self.twice(Stream.close, first=False)
        self.assert_error(answer, ErrorCode.UPSTREAM_CUT)
        self.assertEqual(len(seen), 1)

    async def test_streamed_upload(self) -> None:
        """A streamed body is not sent again."""
        answer, seen = await self.twice(Stream.close, "POST", "/v1/files", b"upload")
        self.assert_error(answer, ErrorCode.UPSTREAM_CUT)
        self.assertEqual(len(seen), 1)

    async def test_once(self) -> None:
        """A request is not sent a third time."""
        answer, seen = await self.twice(Stream.close, always=True)
        self.assert_error(answer, ErrorCode.UPSTREAM_CUT)
        self.assertEqual(len(seen), 2)

    async def test_on_a_fresh_one(self) -> None:
        """The second attempt does not use another idle connection."""
        seen: list[int] = []

        async def script(stream: Stream) -> None:
            number = len(upstream.connections)
            await read_request(stream)
            if number == 1:
                both.append(stream)
            elif number == 2:
                both.append(stream)
                for one in both:
                    respond(one, 200, b"first")
            else:
                respond(stream, 200, b"second")
            await read_request(stream)
            seen.append(number)
            stream.close()

        both: list[Stream] = []
        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        clients = [await self.client(port) for _ in range(2)]
        for client in clients:
            client.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in clients:
            self.assertEqual((await read_response(client)).body, b"first")
        self.assertEqual((await self.request(port, "GET", "/")).body, b"second")
        self.assertEqual((len(seen), len(upstream.connections)), (1, 3))

    async def test_late(self) -> None:
        """A request is not sent again after a second, since the upstream may have acted on it."""
        for seconds, status, count in ((1.0, 200, 2), (1.1, 502, 1)):
            clock = Clock()

            def dies(stream: Stream, clock: Clock = clock, seconds: float = seconds) -> None:
                clock.advance(seconds)
                stream.close()

            answer, seen = await self.twice(dies, clock=clock)
            self.assertEqual((answer.status, len(seen)), (status, count))


class SharedTests(UpstreamTestCase):
    """Pools and agents of the library's user."""

    async def test_pool(self) -> None:
        """A shared pool keeps the connections, is left open, and sends nothing twice."""
        seen: list[str] = []

        async def script(stream: Stream) -> None:
            while True:
                seen.append((await read_request(stream)).target)
                if seen[-1] == "/dies":
                    stream.abort()
                    return
                respond(stream, 200, b"ok")

        pool = HTTPConnectionPool(reactor)
        self.addCleanup(pool.closeCachedConnections)
        upstream = await self.upstream(script)
        resource, port = await self.proxy_resource(upstream.url, pool=pool)
        for _ in range(3):
            self.assertEqual((await self.request(port, "GET", "/v1/x")).body, b"ok")
        self.assertEqual(len(upstream.connections), 1)
        await resource.close()
        await turns(10)
        self.assertIsNone(upstream.connections[0].lost)
        answer = await self.request(port, "PUT", "/dies", b"upload")
        self.assert_error(answer, ErrorCode.UPSTREAM_CUT)
        self.assertEqual(seen.count("/dies"), 1)

    async def test_pool_without_persistence(self) -> None:
        """With a pool that keeps no connections each request says ``Connection: close``."""

        async def script(stream: Stream) -> None:
            request = await read_request(stream)
            respond(stream, 200, (request.get("connection") or "").encode())
            await stream.rest()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, pool=HTTPConnectionPool(reactor, persistent=False))
        for _ in range(2):
            self.assertEqual((await self.request(port, "GET", "/v1/x")).body, b"close")
        for connection in upstream.connections:
            await connection.gone()
        self.assertEqual(len(upstream.connections), 2)

    async def test_agent(self) -> None:
        """A given agent sends all requests, uploads included."""

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                respond(stream, 201, request.target.encode() + request.body, [("X-A", "1")])

        upstream = await self.upstream(script)
        pool = HTTPConnectionPool(reactor)
        self.addCleanup(pool.closeCachedConnections)
        port = await self.proxy(upstream.url, agent=Agent(reactor, pool=pool))
        for method, body in (("GET", None), ("POST", b"upload")):
            answer = await self.request(port, method, "/v1/x?y", body)
            self.assertEqual(answer.body, b"/v1/x?y" + (body or b""))
            self.assertEqual((answer.status, answer.get("x-a")), (201, "1"))

    async def test_client_gone_with_an_agent(self) -> None:
        """A client that leaves ends the agent's request."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(b"hello")
            await stream.rest()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, agent=Agent(reactor))
        client = await self.client(port)
        client.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.until(b"hello")
        client.close()
        await upstream.connections[0].gone()

    async def test_close_over_tls(self) -> None:
        """Closing does not wait for a server that never closes."""
        trust(self)

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 200, b"ok")
            stream.transport.pauseProducing()
            paused.callback(None)

        paused: Deferred[None] = Deferred()
        upstream = await self.upstream(script, server_context("127.0.0.1"))
        resource, port = await self.proxy_resource(upstream.url)
        self.assertEqual((await self.request(port, "GET", "/v1/x")).body, b"ok")
        await paused
        await resource.close()


class DrainTests(UpstreamTestCase):
    """Responses that are no longer needed."""

    async def drained(self, script: Script, clock: Clock) -> tuple[Upstream, UpstreamResponse]:
        server = await self.upstream(script)
        self.server = server
        upstream = Upstream(reactor, parse_upstream_url(server.url))
        self.addCleanup(upstream.close)
        upstream._connections.clock = clock
        response = await upstream.request(b"GET", b"/", [], None)

        class Sink:
            def body_received(self, data: bytes) -> None:
                upstream.drain(response)

            def body_ended(self, error: object) -> None:
                raise AssertionError

        response.start(Sink())
        return upstream, response

    async def test_ends(self) -> None:
        """A response that ends in time gives its connection back."""

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                stream.write(event_stream_head())
                stream.chunk(b"hello")
                await ending.pop()
                stream.chunk(b"more")
                stream.chunk(b"")

        end: Deferred[None] = Deferred()
        ending = [end]
        clock = Clock()
        upstream, response = await self.drained(script, clock)
        while not upstream._draining:
            await turns(1)
        end.callback(None)
        while not response.ended:
            await turns(1)
        self.assertEqual((clock.getDelayedCalls(), upstream._draining), ([], set()))
        ending.append(Deferred())
        second = await upstream.request(b"GET", b"/", [], None)
        self.assertEqual(len(self.server.connections), 1)
        second.hang_up()

    async def test_does_not_end(self) -> None:
        """A response that does not end is dropped after a second."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(b"hello")
            await stream.rest()

        clock = Clock()
        upstream, _ = await self.drained(script, clock)
        while not upstream._draining:
            await turns(1)
        clock.advance(0.9)
        self.assertIsNone(self.server.connections[0].lost)
        clock.advance(0.1)
        await self.server.connections[0].gone()

    async def test_closing(self) -> None:
        """Closing the upstream does not wait for it."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(b"hello")
            await stream.rest()

        clock = Clock()
        upstream, _ = await self.drained(script, clock)
        while not upstream._draining:
            await turns(1)
        await upstream.close()
        await self.server.connections[0].gone()
        self.assertEqual(clock.getDelayedCalls(), [])


class TwistedTests(UpstreamTestCase):
    """Private parts of Twisted that the client side uses."""

    def test_retrying_wrapper(self) -> None:
        """The place where Twisted's retrying wrapper keeps the connection."""
        connection: Any = object()
        wrapper = _RetryingHTTP11ClientProtocol(connection, lambda: Deferred())
        self.assertIs(wrapper._clientProtocol, connection)
        self.assertIs(_HTTP11ClientFactory(connection, "")._quiescentCallback, connection)

    def test_protocol(self) -> None:
        """The client protocol's states and parts."""
        protocol = TwistedConnection(lambda _: None)
        self.assertEqual(protocol._state, "QUIESCENT")
        for name in ("_parser", "_finishedRequest", "_responseDeferred"):
            self.assertIsNone(getattr(protocol, name))
        for name in (
            "_giveUp",
            "_disconnectParser",
            "_finishResponse_WAITING",
            "_finishResponse_TRANSMITTING",
            "_connectionLost_TRANSMITTING",
            "_connectionLost_GENERATION_FAILED",
        ):
            self.assertTrue(callable(getattr(_newclient.HTTP11ClientProtocol, name)), name)

    async def test_parser(self) -> None:
        """The parser's states, and the place of the connection's fields."""
        request = _newclient.Request._construct(b"GET", b"/", None, None, persistent=True)
        finished: list[bytes] = []
        parser = _newclient.HTTPClientParser(request, finished.append)
        parser.makeConnection(StringTransport())
        self.assertEqual(parser.state, "STATUS")
        parser.dataReceived(b"HTTP/1.1 200 OK\r\nConnection: x\r\n")
        self.assertEqual(parser.state, "HEADER")
        parser.dataReceived(b"Content-Length: 3\r\nX-A: b\r\n\r\n")
        self.assertEqual(parser.state, "BODY")
        self.assertEqual(parser.connHeaders.getRawHeaders(b"connection"), [b"x"])
        self.assertEqual(parser.connHeaders.getRawHeaders(b"content-length"), [b"3"])
        self.assertEqual(parser.response.headers.getRawHeaders(b"x-a"), [b"b"])
        self.assertEqual(parser.response.version, (b"HTTP", 1, 1))

    def test_tls_options(self) -> None:
        """The parts of Twisted's verification that ours reuses."""
        options: Any = optionsForClientTLS("example.com")
        self.assertEqual((options._hostnameIsDnsName, options._hostnameASCII), (True, "example.com"))
        self.assertTrue(callable(TLSMemoryBIOProtocol.failVerification))
        self.assertTrue(callable(_sslverify._verifyCB))


class LimitTests(UpstreamTestCase):
    """Limits of the configuration."""

    async def test_connect_seconds(self) -> None:
        """``connectSeconds`` is the connect limit."""
        resource, _ = await self.proxy_resource("http://127.0.0.1:1", limits=Limits(connect_seconds=3))
        self.assertEqual(resource.upstream.connect_seconds, 3)
