"""The server half on its own: what it makes of heads, and of clients that are slow, silent or malformed."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.http import HTTPChannel, _IdentityTransferDecoder
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import alsoProvides

from stream_proxy.downstream.channel import DownstreamChannel
from stream_proxy.downstream.request import ProxyRequest
from stream_proxy.downstream.response import respond_error
from stream_proxy.downstream.site import ProxySite
from stream_proxy.errors import APIError, upstream_error
from stream_proxy.limits import Limits
from tests.support.loopback import LoopbackTestCase, reactor
from tests.support.recording import RelayTestCase
from tests.support.wire import Message, read_response

CLIENT_IDLE_SECONDS = Limits().client_idle_seconds


class HeadTests(RelayTestCase):
    """Heads that cannot be accepted are answered, in OpenAI's form, before anything is dialled."""

    async def refusal(self, *sent: bytes, status: int) -> Message:
        """The answer to something that is no request; it is read whole although the client sends on."""
        _, port = await self.between()
        client = await self.client(port)
        for data in sent:
            client.write(data)
        answer = await read_response(client)
        self.assertEqual((answer.status, answer.complete), (status, True))
        self.assertEqual(answer.json()["error"]["type"], "invalid_request_error")
        self.assertEqual(answer.get("connection"), "close")
        self.assertIsInstance((await client.gone()).value, ConnectionDone)
        self.assertEqual(self.server.connections, [])
        return answer

    async def test_many_fields_too_large(self) -> None:
        """A head of more than 64 KiB in many fields is a 431."""
        fields = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 1000) for number in range(300))
        await self.refusal(b"GET /v1/x HTTP/1.1\r\n", fields, status=431)

    async def test_one_line_too_long(self) -> None:
        """So is one line that does not end, and a request line of that kind."""
        await self.refusal(b"GET /v1/x HTTP/1.1\r\nX: ", b"x" * 2_000_000, status=431)
        await self.refusal(b"GET /", b"x" * 2_000_000, status=431)

    async def test_too_many_fields(self) -> None:
        """More than 500 fields are a 431, 500 are not."""
        fields = b"".join(b"X-%d: x\r\n" % number for number in range(501))
        answer = await self.refusal(b"GET /v1/x HTTP/1.1\r\n" + fields + b"\r\n", status=431)
        self.assertIn("fields", answer.json()["error"]["message"])
        recorder, port = await self.between()
        await self.request(port, "GET", "/v1/x", headers=[(f"X-{number}", "x") for number in range(499)])
        self.assertEqual(len(recorder.last.headers), 500)

    async def test_large_head(self) -> None:
        """A head of just less than 64 KiB passes."""
        recorder, port = await self.between()
        answer = await self.request(port, "GET", "/v1/x", headers=[("X", "x" * 65_000)])
        self.assertEqual((answer.status, len(recorder.last.get("x") or "")), (200, 65_000))

    async def test_malformed(self) -> None:
        """What is no HTTP is a 400."""
        for data in [
            b"GET\r\n\r\n",
            b"GET /v1/x\r\n\r\n",
            b"GET  /v1/x HTTP/1.1\r\n\r\n",
            b"GET /v1/x HTTP/2.0\r\n\r\n",
            b"G@T /v1/x HTTP/1.1\r\n\r\n",
            b"GET /v1/x HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET /v1/x HTTP/1.1\r\nno colon\r\nX: y\r\n\r\n",
            b"GET /v1/x HTTP/1.1\r\nBad Name: x\r\n\r\n",
            b"GET /v1/x HTTP/1.1\r\nX: a\x00b\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ]:
            await self.refusal(data, b"GET /v1/x HTTP/1.1\r\n\r\n" * 2, status=400)

    async def test_ambiguous_framing(self) -> None:
        """Two lengths, a length with chunks, or an unknown transfer coding are a 400, never a guess."""
        for framing in [
            b"Content-Length: 3\r\nContent-Length: 3\r\n",
            b"Content-Length: 3\r\nContent-Length: 4\r\n",
            b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"Content-Length: -1\r\n",
            b"Content-Length: 1_0\r\n",
            b"Content-Length: 0x10\r\n",
        ]:
            await self.refusal(b"POST /v1/x HTTP/1.1\r\n" + framing + b"\r\nabc", status=400)

    async def test_malformed_body_of_a_refused_request(self) -> None:
        """One request gets one answer, even if its target and its body are both wrong."""
        _, port = await self.between()
        client = await self.client(port)
        client.write(b"POST evil HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n")
        self.assertEqual((await client.rest()).count(b"HTTP/1.1"), 1)

    async def test_second_request_malformed(self) -> None:
        """A malformed request after a good one is refused after the good one's answer."""
        _, port = await self.between()
        client = await self.client(port)
        client.write(b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\nrubbish\r\n\r\n")
        self.assertEqual((await read_response(client)).status, 200)
        self.assertEqual((await read_response(client)).status, 400)
        await client.gone()


class IdleTests(LoopbackTestCase):
    """Client connections are kept when idle, and not for ever."""

    def channel(self, resource: Resource | None = None) -> tuple[DownstreamChannel, Any, Clock]:
        """A connection without a socket, whose time is ours."""
        clock = Clock()
        site = ProxySite(resource or Resource(), reactor=clock)
        channel: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport: Any = StringTransport()
        transport.abortConnection = transport.loseConnection
        channel.callLater = clock.callLater
        channel.makeConnection(transport)
        return channel, transport, clock

    def test_idle(self) -> None:
        """An idle connection is closed after ``clientIdleSeconds``, not before."""
        _, transport, clock = self.channel()
        clock.advance(CLIENT_IDLE_SECONDS - 1)
        self.assertFalse(transport.disconnecting)
        clock.advance(1)
        self.assertTrue(transport.disconnecting)

    def test_idle_after_requests(self) -> None:
        """The same after a request, with and without an upload."""

        class Echo(Resource):
            isLeaf = True
            streamsUploads = True

            def render(self, request: Request) -> int:
                waiting.append(request)
                return NOT_DONE_YET

        for framing in (b"\r\n", b"Content-Length: 3\r\n\r\nabc"):
            waiting: list[Request] = []
            channel, transport, clock = self.channel(Echo())
            channel.dataReceived(b"POST / HTTP/1.1\r\n" + framing)
            clock.advance(10 * CLIENT_IDLE_SECONDS)
            self.assertFalse(transport.disconnecting)
            waiting[0].finish()
            clock.advance(CLIENT_IDLE_SECONDS - 1)
            self.assertFalse(transport.disconnecting)
            clock.advance(1)
            self.assertTrue(transport.disconnecting, framing)

    def test_upload_is_not_idle(self) -> None:
        """While an upload runs, its reader watches the time, not the connection."""

        class Wait(Resource):
            isLeaf = True
            streamsUploads = True

            def render(self, request: Request) -> int:
                return NOT_DONE_YET

        channel, transport, clock = self.channel(Wait())
        channel.dataReceived(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na")
        clock.advance(10 * CLIENT_IDLE_SECONDS)
        self.assertFalse(transport.disconnecting)

    def test_closing_is_bounded(self) -> None:
        """A client that does not take the rest of its answer is dropped in the end."""

        class Ok(Resource):
            isLeaf = True

            def render(self, request: Request) -> bytes:
                return b"ok"

        channel, transport, clock = self.channel(Ok())
        transport.loseConnection = lambda: None
        dropped: list[None] = []
        transport.abortConnection = lambda: dropped.append(None)
        channel.dataReceived(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        clock.advance(CLIENT_IDLE_SECONDS)
        self.assertEqual(dropped, [None])

    def lingering(self) -> tuple[DownstreamChannel, list[str], Clock]:
        """A connection that was half-closed after an answer that came before its upload's end."""

        class Refuse(Resource):
            isLeaf = True
            streamsUploads = True

            def render(self, request: Request) -> bytes:
                return b"no"

        channel, transport, clock = self.channel(Refuse())
        alsoProvides(transport, IHalfCloseableDescriptor)
        calls: list[str] = []
        transport.loseWriteConnection = lambda: calls.append("half-closed")
        transport.loseConnection = lambda: calls.append("closed")
        transport.abortConnection = lambda: calls.append("dropped")
        channel.dataReceived(b"POST / HTTP/1.1\r\nContent-Length: 999\r\n\r\nfirst")
        self.assertEqual(calls, ["half-closed"])
        return channel, calls, clock

    def test_silent_linger(self) -> None:
        """A client that neither sends the rest of a refused upload nor closes is let go after 5 seconds,
        with an orderly close, which leaves it the answer that it may still be reading."""
        channel, calls, clock = self.lingering()
        clock.advance(4)
        channel.dataReceived(b"more")
        clock.advance(4)
        self.assertEqual(calls, ["half-closed"])
        clock.advance(1)
        self.assertEqual(calls, ["half-closed", "closed"])

    def test_endless_linger(self) -> None:
        """One that sends on and on is dropped after 30."""
        channel, calls, clock = self.lingering()
        for _ in range(29):
            clock.advance(1)
            channel.dataReceived(b"more")
        self.assertEqual(calls, ["half-closed"])
        clock.advance(1)
        self.assertEqual(calls, ["half-closed", "dropped"])


class AnswerErrorTests(LoopbackTestCase):
    """Errors of ours, with what the upstream said beside them."""

    async def answered(self, error: APIError, headers: list[tuple[bytes, bytes]]) -> Message:
        class Failing(Resource):
            isLeaf = True

            def render(self, request: Request) -> int:
                respond_error(request, error, headers)
                return NOT_DONE_YET

        site = ProxySite(Failing(), reactor=reactor)
        port = await self.listen(site)
        answer = await self.request(port, "GET", "/")
        await site.drain(0)
        return answer

    async def test_should_retry(self) -> None:
        """Where an error says whether to retry, the upstream's word on that does not count."""
        error = upstream_error("no")
        answer = await self.answered(error, [(b"x-should-retry", b"true"), (b"x-request-id", b"1")])
        self.assertEqual((answer.get("x-should-retry"), answer.get("x-request-id")), ("true", "1"))
        self.assertEqual((answer.status, answer.line), (502, "HTTP/1.1 502 Bad Gateway"))


class TwistedTests(LoopbackTestCase):
    """What the server half uses of Twisted without its promise is as it was."""

    def test_channel(self) -> None:
        """HTTPChannel's private attributes."""
        channel = HTTPChannel()
        self.assertEqual((channel._transferDecoder, channel._dataBuffer, channel.requests), (None, [], []))
        for name in (
            "_savedTimeOut",
            "_receivedHeaderSize",
            "_receivedHeaderCount",
            "_handlingRequest",
            "_respondToBadRequestAndDisconnect",
            "maxHeaders",
            "totalHeadersSize",
        ):
            self.assertTrue(hasattr(channel, name), name)

    async def test_upload_hooks(self) -> None:
        """The order in which a channel calls a request with a body: length, pieces, end."""
        calls: list[str] = []

        class Recording(ProxyRequest):
            def gotLength(self, length: int | None) -> None:
                channel: Any = self.channel
                calls.append(f"length {length} {channel._command} {channel._path} {channel._version}")
                assert isinstance(channel._transferDecoder, _IdentityTransferDecoder)
                super().gotLength(length)

            def handleContentChunk(self, data: bytes) -> None:
                calls.append(f"piece {data!r}")
                super().handleContentChunk(data)

            def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
                calls.append("end")
                super().requestReceived(command, path, version)

        class Ok(Resource):
            isLeaf = True

            def render(self, request: Request) -> bytes:
                return b"ok"

        site = ProxySite(Ok(), reactor=reactor)
        site.requestFactory = Recording
        port = await self.listen(site)
        client = await self.client(port)
        client.write(b"POST /x HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc")
        await client.rest()
        self.assertEqual(calls, ["length 3 b'POST' b'/x' b'HTTP/1.1'", "piece b'abc'", "end"])
        await site.drain(0)
