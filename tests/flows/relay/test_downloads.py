"""Relayed response bodies: streamed, broken off, silent."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from stream_proxy.limits import Limits
from stream_proxy.upstream.http1.body import Body, LengthBody
from stream_proxy.upstream.http1.chunked import ChunkedBody
from tests.support.certificates import server_context, trust
from tests.support.loopback import LoopbackTestCase, turns
from tests.support.payloads import CHAT, event
from tests.support.ways import take_ways
from tests.support.wire import (
    GET,
    JSON,
    Stream,
    event_stream_head,
    head,
    read_head,
    read_request,
    read_response,
    respond,
)


class DownloadTests(LoopbackTestCase):
    """A response reaches the client as it arrives."""

    async def test_first_event(self) -> None:
        """Each event reaches the client before the upstream sends the next one."""
        response = self

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            for number in range(3):
                response.sent = Deferred()
                stream.chunk(event(number))
                await response.sent
            stream.chunk(b"")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(GET)
        await read_head(client)
        for number in range(3):
            await client.until(event(number))
            self.sent.callback(None)
        await client.until(b"0\r\n\r\n")

    async def test_head_alone(self) -> None:
        """The head is relayed before any of the body has arrived."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            await stream.rest()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(GET)
        self.assertEqual((await read_head(client)).status, 200)

    sent: Deferred[None]


class LargeTests(LoopbackTestCase):
    """Large bodies, beside which others are served."""

    plain = False
    #: Bytes of a large body.
    size = 2**24

    def setUp(self) -> None:
        take_ways(self, plain=self.plain)

    async def serve(self, stream: Stream) -> None:
        """Answer requests: with a body in chunks, one with a length, or a small one."""
        while True:
            target = (await read_request(stream)).target
            piece, many = bytes(2**16), self.size // 2**16
            if target == "/chunks":
                stream.write(event_stream_head())
                await _produce(stream, [b"10000\r\n%b\r\n" % piece] * many + [b"0\r\n\r\n"])
            elif target == "/length":
                stream.write(head(200, [("Content-Length", str(self.size))]))
                await _produce(stream, [piece] * many)
            else:
                respond(stream, 200, b"small")

    async def test_others(self) -> None:
        """Requests are answered while a large body is under way."""
        trust(self)
        for tls in (None, server_context("127.0.0.1")):
            upstream = await self.upstream(self.serve, tls)
            port = await self.proxy(upstream.url)
            small = await self.client(port)
            for target in (b"/chunks", b"/length"):
                large = await self.client(port)
                large.write(GET.replace(b"/v1/x", target))
                await large.exactly(2**20)
                for _ in range(3):
                    small.write(GET)
                    self.assertEqual((await read_response(small)).body, b"small")
                self.assertLess(large.received, self.size)
                large.abort()

    def reads(self, kind: type[Body]) -> list[int]:
        """Return a list that gets the sizes of what such bodies are fed."""
        sizes: list[int] = []
        feed = kind.feed

        def noting(body: Body, data: bytes) -> bytes:
            sizes.append(len(data))
            return feed(body, data)

        self.patch(kind, "feed", noting)
        return sizes

    async def test_turn(self) -> None:
        """One turn takes one read of a body that waits: 64 KiB, or 256 KiB of one whose length is known."""
        upstream = await self.upstream(self.serve)
        port = await self.proxy(upstream.url)
        for target, kind, most in ((b"/chunks", ChunkedBody, 2**16), (b"/length", LengthBody, 2**18)):
            sizes = self.reads(kind)
            client = await self.client(port)
            client.write(GET.replace(b"/v1/x", target))
            await client.exactly(2**20)
            client.transport.pauseProducing()
            while sizes:  # until everything on the way is full
                sizes.clear()
                await turns(10)
            client.transport.resumeProducing()
            while client.received < self.size:
                sizes.clear()
                await turns(1)
                self.assertLessEqual(sum(sizes), most)
            client.abort()

    async def test_reads(self) -> None:
        """A large body of known length is read in large pieces, and whatever follows it is not."""
        upstream = await self.upstream(self.serve)
        client = await self.client(await self.proxy(upstream.url))
        for target, kind in ((b"/length", LengthBody), (b"/chunks", ChunkedBody)):
            sizes = self.reads(kind)
            client.write(GET.replace(b"/v1/x", target))
            await read_response(client)
            self.assertEqual(max(sizes) > 2**16, kind is LengthBody and not self.plain)
        self.assertEqual(len(upstream.connections), 1)


class PlainLargeTests(LargeTests):
    """The same without what relies on insides of Twisted."""

    plain = True


async def _produce(stream: Stream, pieces: list[bytes]) -> None:
    """Write `pieces`, each when there is room for it."""
    done: Deferred[None] = Deferred()
    stream.transport.registerProducer(_Pieces(stream, pieces, done), False)
    await done


@implementer(IPullProducer)
class _Pieces:
    def __init__(self, stream: Stream, pieces: list[bytes], done: Deferred[None]) -> None:
        self._stream = stream
        self._pieces = pieces[::-1]
        self._done = done

    def resumeProducing(self) -> None:
        self._stream.write(self._pieces.pop())
        if not self._pieces:
            self._stream.transport.unregisterProducer()
            self._done.callback(None)

    def stopProducing(self) -> None:
        if not self._done.called:
            self._done.errback(EOFError())


class BrokenTests(LoopbackTestCase):
    """A truncated body never looks complete."""

    async def broken(
        self, response: bytes, *, reset: bool, request: bytes = GET, tls: Any = None
    ) -> tuple[bytes, bool]:
        """Return what the client receives of `response`, and whether its connection was closed in order."""
        arrived: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            stream.write(response)
            await arrived
            if reset:
                stream.abort()
            else:
                stream.close()

        upstream = await self.upstream(script, tls)
        client = await self.client(await self.proxy(upstream.url))
        client.write(request)
        got = await client.until(b"hel")
        arrived.callback(None)
        got += await client.rest()
        return got, (await client.gone()).check(ConnectionDone) is not None

    async def test_length(self) -> None:
        """The beginning of a truncated body is delivered; then the connection closes, short of the length."""
        for reset in (False, True):
            got, _ = await self.broken(head(200, [("Content-Length", "10")]) + b"hel", reset=reset)
            self.assertEqual(got.partition(b"\r\n\r\n")[2], b"hel")
            self.assertIn(b"Content-Length: 10\r\n", got)

    async def test_chunked(self) -> None:
        """A truncated chunked body ends without the last chunk, wherever it was cut off."""
        for tail in (b"", b"5\r\n", b"5\r\nxy", b"5\r\nworld", b"5", b"0\r\n", b"0\r\nX-T: 1\r\n", b"zz\r\n"):
            for reset in (False, True):
                got, _ = await self.broken(event_stream_head() + b"3\r\nhel\r\n" + tail, reset=reset)
                body = got.partition(b"\r\n\r\n")[2]
                self.assertTrue(body.partition(b"\r\n")[2].startswith(b"hel"), body)
                self.assertNotIn(b"0\r\n\r\n", body)

    async def test_reset_without_framing(self) -> None:
        """A reset does not count as the end of a close-delimited body."""
        got, _ = await self.broken(head(200) + b"hel", reset=True)
        self.assertTrue(got.endswith(b"3\r\nhel\r\n"), got)

    async def test_old_client(self) -> None:
        """An HTTP/1.0 client, for which a close is the end, gets what arrived and then a reset."""
        old = b"GET /v1/x HTTP/1.0\r\n\r\n"
        for response, reset in [(event_stream_head() + b"3\r\nhel\r\n", False), (head(200) + b"hel", True)]:
            got, orderly = await self.broken(response, reset=reset, request=old)
            self.assertTrue(got.endswith(b"\r\n\r\nhel"), got)
            self.assertFalse(orderly)

    async def test_old_client_with_a_length(self) -> None:
        """With a Content-Length, an HTTP/1.0 client gets an ordinary close, short of the length."""
        got, _ = await self.broken(
            head(200, [("Content-Length", "10")]) + b"hel", reset=True, request=b"GET / HTTP/1.0\r\n\r\n"
        )
        self.assertTrue(got.endswith(b"hel"), got)

    async def test_everything_in_one_go(self) -> None:
        """An HTTP/1.0 client also gets the bytes that arrived just before the stream broke."""

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            stream.write(event_stream_head() + b"3\r\nhel\r\nzz\r\n")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(b"GET /v1/x HTTP/1.0\r\n\r\n")
        await client.until(b"hel")
        self.assertIsNone((await client.gone()).check(ConnectionDone))

    async def test_tls_truncation(self) -> None:
        """Over TLS, a connection that ends without a close_notify alert does not end a body."""
        trust(self)
        context = server_context("127.0.0.1")
        got, _ = await self.broken(head(200) + b"hel", reset=True, tls=context)
        self.assertNotIn(b"0\r\n\r\n", got.partition(b"\r\n\r\n")[2])
        closing = GET.replace(b"Host: x", b"Host: x\r\nConnection: close")
        got, _ = await self.broken(head(200) + b"hel", reset=False, tls=context, request=closing)
        self.assertTrue(got.endswith(b"3\r\nhel\r\n0\r\n\r\n"), got)


class SilenceTests(LoopbackTestCase):
    """``timeoutSeconds`` bounds the silence of either side."""

    limits = Limits(timeout_seconds=0.5)

    async def test_before_the_head(self) -> None:
        """An upstream that does not begin to respond causes a 504, and its connection is dropped."""

        async def script(stream: Stream) -> None:
            await stream.rest()

        upstream = await self.upstream(script)
        response = await self.request(await self.proxy(upstream.url, limits=self.limits), "GET", "/v1/x")
        self.assertEqual((response.status, response.json()["error"]["type"]), (504, "upstream_timeout"))
        self.assertIn("0.5 seconds", response.json()["error"]["message"])
        await upstream.connections[0].gone()

    async def test_in_the_body(self) -> None:
        """An upstream that falls silent in a response truncates it; what arrived is delivered."""

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            stream.write(event_stream_head())
            stream.chunk(b"hello")
            await stream.rest()

        upstream = await self.upstream(script)
        response = await self.request(await self.proxy(upstream.url, limits=self.limits), "GET", "/v1/x")
        self.assertEqual((response.body, response.complete), (b"hello", False))
        await upstream.connections[0].gone()

    async def test_upload(self) -> None:
        """A client that stops in the middle of an upload, or of a JSON call, gets a 504."""

        async def script(stream: Stream) -> None:
            await stream.rest()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, limits=self.limits)
        for target, headers in [("/v1/files", ""), (CHAT, f"{': '.join(JSON)}\r\n")]:
            client = await self.client(port)
            client.write(
                f"POST {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 9\r\n\r\n{{".encode()
            )
            response = await read_response(client)
            self.assertEqual((response.status, response.json()["error"]["type"]), (504, "upstream_timeout"))
            self.assertIn("upload", response.json()["error"]["message"])
        self.assertEqual(len(upstream.connections), 1)
        await upstream.connections[0].gone()
