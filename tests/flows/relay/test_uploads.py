"""Relayed uploads: streamed, answered early, broken off."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone

from tests.support.flood import MIB, Pour, numbered, small_buffers
from tests.support.loopback import LoopbackTestCase
from tests.support.wire import (
    CHUNKED_UPLOAD,
    GET,
    UPLOAD,
    Stream,
    event_stream_head,
    head,
    read_body,
    read_head,
    read_request,
    read_response,
    respond,
)


class UploadTests(LoopbackTestCase):
    """An upload reaches the upstream as it arrives."""

    async def flows(self, request: bytes, framed: Callable[[bytes], bytes], end: bytes) -> None:
        first: Deferred[None] = Deferred()
        got: list[bytes] = []

        async def script(stream: Stream) -> None:
            message = await read_head(stream)
            chunked = message.get("transfer-encoding") == "chunked"
            self.assertEqual(message.get("content-length"), None if chunked else "10")
            if chunked:
                await stream.until(b"\r\n")
            got.append(await stream.exactly(5))
            first.callback(None)
            if chunked:
                await stream.until(b"5\r\n")
            got.append(await stream.exactly(5))
            if chunked:
                await stream.until(b"0\r\n\r\n")
            respond(stream, 200, b"ok")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(request + framed(b"first"))
        await first
        client.write(framed(b"later") + end)
        response = await read_response(client)
        self.assertEqual((response.body, got), (b"ok", [b"first", b"later"]))
        self.assertIsNone(response.get("connection"))

    async def test_by_length(self) -> None:
        """The first bytes arrive upstream before the last are sent, with the client's length."""
        await self.flows(UPLOAD % 10, lambda piece: piece, b"")

    async def test_chunked(self) -> None:
        """An upload without a length is streamed too, and has no length upstream."""
        await self.flows(CHUNKED_UPLOAD, lambda piece: b"5\r\n%b\r\n" % piece, b"0\r\n\r\n")

    async def test_early_response(self) -> None:
        """A response that begins during the upload reaches the client, and both continue to their ends."""
        uploaded: Deferred[bytes] = Deferred()

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\nfirst")
            stream.write(event_stream_head())
            stream.chunk(b"early")
            uploaded.callback(await stream.exactly(5))
            stream.chunk(b"late")
            stream.chunk(b"")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % 10 + b"first")
        response = await read_head(client)
        self.assertEqual(await client.until(b"early\r\n"), b"5\r\nearly\r\n")
        client.write(b"later")
        self.assertEqual(await uploaded, b"later")
        await read_body(client, response, closes=True)
        self.assertEqual((response.body, response.complete), (b"late", True))
        await client.gone()

    async def test_rest_is_no_request(self) -> None:
        """After an early response, the rest of the upload is not parsed as a request."""
        requests: list[bytes] = []

        async def script(stream: Stream) -> None:
            requests.append(await stream.until(b"first"))
            respond(stream, 403, b"no")

        for request in (UPLOAD % 1000, CHUNKED_UPLOAD):
            upstream = await self.upstream(script)
            client = await self.client(await self.proxy(upstream.url))
            client.write(request + (b"5\r\nfirst" if b"chunked" in request else b"first"))
            response = await read_response(client)
            self.assertEqual((response.status, response.body), (403, b"no"))
            self.assertEqual(response.get("connection"), "close")
            client.write(GET * 3)
            self.assertIsInstance((await client.gone()).value, ConnectionDone)
            self.assertEqual(client.buffer, b"")
            await upstream.connections[0].gone()
        self.assertEqual(len(requests), 2)

    async def test_refused_while_sending(self) -> None:
        """A client that is still sending a large upload gets the whole early refusal and an orderly close."""

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            respond(stream, 413, b"x" * 200_000)

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % (8 * MIB))
        Pour(client, numbered(8 * MIB))
        response = await read_response(client)
        self.assertEqual((response.status, len(response.body), response.complete), (413, 200_000, True))
        self.assertIsInstance((await client.gone()).value, ConnectionDone)
        await upstream.connections[0].gone()

    async def test_refused_with_close(self) -> None:
        """The early refusal also arrives if the upstream closes right after it."""

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            respond(stream, 413, b"too large", [("Connection", "close")])
            stream.close()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % MIB + b"first")
        response = await read_response(client)
        self.assertEqual((response.status, response.body), (413, b"too large"))

    async def test_refused_while_stuck(self) -> None:
        """The proxy does not wait for an upstream that sends a response, or garbage, without reading on."""
        await self.stuck(head(413, [("Content-Length", "9")]) + b"too large", 413)
        await self.stuck(b"garbage\r\n\r\n", 502)

    async def stuck(self, says: bytes, status: int) -> None:

        async def script(stream: Stream) -> None:
            small_buffers(stream)
            await stream.until(b"\r\n\r\n")
            stream.transport.pauseProducing()
            started.callback(stream)
            await answered
            stream.write(says)
            await refused
            stream.transport.resumeProducing()
            await stream.rest()

        started: Deferred[Stream] = Deferred()
        answered: Deferred[None] = Deferred()
        refused: Deferred[None] = Deferred()
        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % (64 * MIB))
        stream = await started
        pour = Pour(client, numbered(64 * MIB))
        await pour.stopped()
        answered.callback(None)
        self.assertEqual((await read_response(client)).status, status)
        refused.callback(None)
        await stream.gone()

    async def test_no_body_refusal(self) -> None:
        """An early response without a body ends like one with a body."""

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            stream.write(head(204, reason="No Content"))

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % MIB + b"first")
        self.assertEqual((await read_response(client)).status, 204)
        await client.gone()
        await upstream.connections[0].gone()

    async def test_garbage_during_an_upload(self) -> None:
        """A response that is not HTTP, during the upload, is a 502; the upstream connection is dropped."""

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            stream.write(b"garbage\r\n\r\n")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % MIB + b"first")
        response = await read_response(client)
        self.assertEqual((response.status, response.json()["error"]["type"]), (502, "upstream_error"))
        await upstream.connections[0].gone()


class BrokenUploadTests(LoopbackTestCase):
    """Uploads during which one side breaks off."""

    async def test_broken_early_response(self) -> None:
        """A response that breaks off during the upload does not look complete."""

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            stream.write(event_stream_head() + b"5\r\nearly\r\nzz\r\n")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % MIB + b"first")
        response = await read_response(client)
        self.assertEqual((response.status, response.body, response.complete), (200, b"early", False))
        await upstream.connections[0].gone()

    async def test_upstream_dies_after_an_early_response(self) -> None:
        """An upstream that disconnects in the middle of an early response truncates it, by close or reset."""

        async def script(stream: Stream) -> None:
            await stream.until(b"first")
            stream.write(event_stream_head())
            stream.chunk(b"early")
            leave[0](stream)

        for way in (Stream.abort, Stream.close):
            leave = [way]
            upstream = await self.upstream(script)
            client = await self.client(await self.proxy(upstream.url))
            client.write(UPLOAD % MIB + b"first")
            await client.until(b"\r\n\r\n" if way is Stream.close else b"HTTP")
            self.assertNotIn(b"\r\n0\r\n\r\n", await client.rest())

    async def test_upstream_dies(self) -> None:
        """An upstream that resets the connection during an upload causes a 502."""

        async def script(stream: Stream) -> None:
            await stream.until(b"first")
            stream.abort()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % MIB + b"first")
        self.assertEqual((await read_response(client)).status, 502)

    async def test_malformed_chunk(self) -> None:
        """A chunked upload that turns out malformed gets a 400, and the upstream never sees its end."""

        async def script(stream: Stream) -> None:
            await stream.until(b"first")
            started.callback(None)
            await stream.rest()

        started: Deferred[None] = Deferred()
        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(CHUNKED_UPLOAD + b"5\r\nfirst\r\n")
        await started
        client.write(b"zz\r\nmore" * 1000)
        response = await read_response(client)
        self.assertEqual((response.status, response.json()["error"]["type"]), (400, "invalid_request_error"))
        await client.gone()
        await upstream.connections[0].gone()

    async def test_response_with_a_close(self) -> None:
        """A response that says ``close``, sent after the whole upload, is not a broken connection."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 200, b"ok", [("Connection", "close")])
            stream.close()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % 5 + b"first")
        response = await read_response(client)
        self.assertEqual((response.body, response.get("connection")), (b"ok", None))
