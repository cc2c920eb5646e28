"""Relayed response bodies: streamed, broken off, silent."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone

from stream_proxy.limits import Limits
from tests.support.certificates import server_context, trust
from tests.support.loopback import LoopbackTestCase
from tests.support.payloads import CHAT, event
from tests.support.wire import (
    GET,
    JSON,
    Stream,
    event_stream_head,
    head,
    read_head,
    read_request,
    read_response,
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
