"""Bodies on their way through: as they come, as fast as they are taken, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone

from stream_proxy.flows.resource import ProxyResource
from stream_proxy.limits import Limits
from stream_proxy.request_log import RequestLog
from tests.support.certificates import server_context, trust
from tests.support.flood import MIB, Pour, numbered, small_buffers
from tests.support.loopback import LoopbackTestCase, turns
from tests.support.payloads import CHAT, CHAT_BODY, DONE, chunk, event
from tests.support.wire import (
    CHUNKED_UPLOAD,
    GET,
    JSON,
    UPLOAD,
    Stream,
    event_stream_head,
    head,
    read_body,
    read_head,
    read_request,
    read_response,
    respond,
    send_request,
)


class UploadTests(LoopbackTestCase):
    """An upload reaches the upstream as it comes."""

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
        answer = await read_response(client)
        self.assertEqual((answer.body, got), (b"ok", [b"first", b"later"]))
        self.assertIsNone(answer.get("connection"))

    async def test_by_length(self) -> None:
        """The first bytes arrive upstream before the last were sent, with the client's length."""
        await self.flows(UPLOAD % 10, lambda piece: piece, b"")

    async def test_chunked(self) -> None:
        """So they do when the upload has no length, and then it has none upstream."""
        await self.flows(CHUNKED_UPLOAD, lambda piece: b"5\r\n%b\r\n" % piece, b"0\r\n\r\n")

    async def test_early_answer(self) -> None:
        """An answer that begins while the upload runs reaches the client, and both go on to their ends."""
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
        answer = await read_head(client)
        self.assertEqual(await client.until(b"early\r\n"), b"5\r\nearly\r\n")
        client.write(b"later")
        self.assertEqual(await uploaded, b"later")
        await read_body(client, answer, closes=True)
        self.assertEqual((answer.body, answer.complete), (b"late", True))
        await client.gone()

    async def test_rest_is_no_request(self) -> None:
        """After an answer that came before the upload was over, the rest of it is not read as a request."""
        requests: list[bytes] = []

        async def script(stream: Stream) -> None:
            requests.append(await stream.until(b"first"))
            respond(stream, 403, b"no")

        for request in (UPLOAD % 1000, CHUNKED_UPLOAD):
            upstream = await self.upstream(script)
            client = await self.client(await self.proxy(upstream.url))
            client.write(request + (b"5\r\nfirst" if b"chunked" in request else b"first"))
            answer = await read_response(client)
            self.assertEqual((answer.status, answer.body), (403, b"no"))
            self.assertEqual(answer.get("connection"), "close")
            client.write(GET * 3)
            self.assertIsInstance((await client.gone()).value, ConnectionDone)
            self.assertEqual(client.buffer, b"")
            await upstream.connections[0].gone()
        self.assertEqual(len(requests), 2)

    async def test_refused_while_sending(self) -> None:
        """A client that is busy sending a large upload gets the whole early refusal and an orderly end, and
        the upstream connection is dropped."""

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            respond(stream, 413, b"x" * 200_000)

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % (8 * MIB))
        Pour(client, numbered(8 * MIB))
        answer = await read_response(client)
        self.assertEqual((answer.status, len(answer.body), answer.complete), (413, 200_000, True))
        self.assertIsInstance((await client.gone()).value, ConnectionDone)
        await upstream.connections[0].gone()

    async def test_refused_with_close(self) -> None:
        """The same where the upstream closes right after its refusal."""

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            respond(stream, 413, b"too large", [("Connection", "close")])
            stream.close()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % MIB + b"first")
        answer = await read_response(client)
        self.assertEqual((answer.status, answer.body), (413, b"too large"))

    async def test_refused_while_stuck(self) -> None:
        """An upstream that answers, or says what is no answer, without reading on is not waited for."""
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
        """An early answer without a body ends like one with a body."""

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
        """What is no answer, while the upload runs, is a 502, and the upstream connection is dropped."""

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            stream.write(b"garbage\r\n\r\n")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % MIB + b"first")
        answer = await read_response(client)
        self.assertEqual((answer.status, answer.json()["error"]["type"]), (502, "upstream_error"))
        await upstream.connections[0].gone()

    async def test_broken_early_answer(self) -> None:
        """An answer that breaks while the upload runs does not look complete."""

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            stream.write(event_stream_head() + b"5\r\nearly\r\nzz\r\n")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % MIB + b"first")
        answer = await read_response(client)
        self.assertEqual((answer.status, answer.body, answer.complete), (200, b"early", False))
        await upstream.connections[0].gone()

    async def test_upstream_dies_after_an_early_answer(self) -> None:
        """An upstream that goes in the middle of an early answer breaks it off, however it goes."""

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
        """An upstream that resets the connection during an upload is a 502."""

        async def script(stream: Stream) -> None:
            await stream.until(b"first")
            stream.abort()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % MIB + b"first")
        self.assertEqual((await read_response(client)).status, 502)

    async def test_malformed_chunk(self) -> None:
        """A chunked upload that is malformed half-way is a 400, and the upstream does not see it end."""

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
        answer = await read_response(client)
        self.assertEqual((answer.status, answer.json()["error"]["type"]), (400, "invalid_request_error"))
        await client.gone()
        await upstream.connections[0].gone()

    async def test_answer_after_a_close(self) -> None:
        """A refusal that says ``close`` while all of the upload is out is no broken connection."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 200, b"ok", [("Connection", "close")])
            stream.close()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(UPLOAD % 5 + b"first")
        answer = await read_response(client)
        self.assertEqual((answer.body, answer.get("connection")), (b"ok", None))


class DownloadTests(LoopbackTestCase):
    """An answer reaches the client as it comes."""

    async def test_first_event(self) -> None:
        """Each event is with the client before the next one comes in."""
        answer = self

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            for number in range(3):
                answer.sent = Deferred()
                stream.chunk(event(number))
                await answer.sent
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
        """The head does not wait for the body."""

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
    """A body that breaks off never looks as if it had ended."""

    async def broken(
        self, answer: bytes, *, reset: bool, request: bytes = GET, tls: Any = None
    ) -> tuple[bytes, bool]:
        """What the client gets of an answer after which the upstream goes; whether its end was orderly."""
        arrived: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            stream.write(answer)
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
        """What came of a body with a length is delivered, then the connection closes short of it."""
        for reset in (False, True):
            got, _ = await self.broken(head(200, [("Content-Length", "10")]) + b"hel", reset=reset)
            self.assertEqual(got.partition(b"\r\n\r\n")[2], b"hel")
            self.assertIn(b"Content-Length: 10\r\n", got)

    async def test_chunked(self) -> None:
        """A chunked body that breaks has no last chunk: between chunks, inside one, inside a chunk's head."""
        for tail in (b"", b"5\r\n", b"5\r\nxy", b"5\r\nworld", b"5", b"0\r\n", b"0\r\nX-T: 1\r\n", b"zz\r\n"):
            for reset in (False, True):
                got, _ = await self.broken(event_stream_head() + b"3\r\nhel\r\n" + tail, reset=reset)
                body = got.partition(b"\r\n\r\n")[2]
                self.assertTrue(body.startswith(b"3\r\nhel\r\n"), body)
                self.assertNotIn(b"0\r\n\r\n", body)

    async def test_reset_without_framing(self) -> None:
        """A reset in a body that ends with the connection is no end."""
        got, _ = await self.broken(head(200) + b"hel", reset=True)
        self.assertTrue(got.endswith(b"3\r\nhel\r\n"), got)

    async def test_old_client(self) -> None:
        """To a client for which the close is the end, a broken body ends with a reset; what came is there."""
        old = b"GET /v1/x HTTP/1.0\r\n\r\n"
        for answer, reset in [(event_stream_head() + b"3\r\nhel\r\n", False), (head(200) + b"hel", True)]:
            got, orderly = await self.broken(answer, reset=reset, request=old)
            self.assertTrue(got.endswith(b"\r\n\r\nhel"), got)
            self.assertFalse(orderly)

    async def test_old_client_with_a_length(self) -> None:
        """With a length the close comes short of it, which is enough."""
        got, _ = await self.broken(
            head(200, [("Content-Length", "10")]) + b"hel", reset=True, request=b"GET / HTTP/1.0\r\n\r\n"
        )
        self.assertTrue(got.endswith(b"hel"), got)

    async def test_everything_in_one_go(self) -> None:
        """What came just before the break is delivered to an HTTP/1.0 client, too."""

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            stream.write(event_stream_head() + b"3\r\nhel\r\nzz\r\n")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(b"GET /v1/x HTTP/1.0\r\n\r\n")
        await client.until(b"hel")
        self.assertIsNone((await client.gone()).check(ConnectionDone))

    async def test_tls_truncation(self) -> None:
        """Over TLS a connection that ends without TLS's own goodbye is no end of a body."""
        trust(self)
        context = server_context("127.0.0.1")
        got, _ = await self.broken(head(200) + b"hel", reset=True, tls=context)
        self.assertNotIn(b"0\r\n\r\n", got.partition(b"\r\n\r\n")[2])
        closing = GET.replace(b"Host: x", b"Host: x\r\nConnection: close")
        got, _ = await self.broken(head(200) + b"hel", reset=False, tls=context, request=closing)
        self.assertTrue(got.endswith(b"3\r\nhel\r\n0\r\n\r\n"), got)


class BackpressureTests(LoopbackTestCase):
    """A reader that stops stops the sender, whichever way the bytes go."""

    total = 64 * MIB
    bound = 24 * MIB

    async def download(self, first: bytes, rest: bytes, request: bytes = GET) -> None:
        pieces = numbered(self.total)
        pour: Deferred[Pour] = Deferred()

        async def script(stream: Stream) -> None:
            small_buffers(stream)
            await stream.until(b"\r\n\r\n")
            stream.write(first)
            pour.callback(Pour(stream, pieces))
            await stream.rest()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        small_buffers(client)
        client.write(request)
        await client.until(b"\r\n\r\n")
        client.transport.pauseProducing()
        poured = await pour
        self.assertLess(await poured.stopped() * 65536, self.bound)
        client.transport.resumeProducing()
        for piece in pieces:
            self.assertTrue(await client.exactly(len(piece)) == piece)

    async def test_download(self) -> None:
        """An upstream is slowed down to what the client takes; then all of it arrives in order."""
        await self.download(head(200, [("Content-Length", str(self.total))]), b"")

    async def test_old_download(self) -> None:
        """So it is where nothing says how long the body is."""
        await self.download(head(200), b"", b"GET / HTTP/1.0\r\n\r\n")

    async def test_upload(self) -> None:
        """A client is slowed down to what the upstream takes; then all of it arrives in order."""
        pieces = numbered(self.total)
        begun: Deferred[Stream] = Deferred()
        read: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            small_buffers(stream)
            await stream.until(b"\r\n\r\n")
            stream.transport.pauseProducing()
            begun.callback(stream)
            await read
            stream.transport.resumeProducing()
            for piece in pieces:
                self.assertTrue(await stream.exactly(len(piece)) == piece)
            respond(stream, 200, b"ok")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        small_buffers(client)
        client.write(UPLOAD % self.total)
        await begun
        pour = Pour(client, pieces)
        self.assertLess(await pour.stopped() * 65536, self.bound)
        read.callback(None)
        self.assertEqual((await read_response(client)).body, b"ok")

    async def test_upload_before_there_is_a_connection(self) -> None:
        """An upload waits at the client while the upstream is being reached."""
        waiting: Deferred[Any] = Deferred()

        class Endpoint:
            def connect(self, factory: object) -> Deferred[Any]:
                return waiting

        async def script(stream: Stream) -> None:
            raise AssertionError

        upstream = await self.upstream(script)
        resources: list[ProxyResource] = []

        def make(*args: Any, **kwargs: Any) -> ProxyResource:
            resource = ProxyResource(*args, **kwargs)
            resources.append(resource)
            return resource

        port = await self.proxy(upstream.url, resource=make)
        resources[0].upstream._connections.endpoint = Endpoint()  # type: ignore[assignment]
        client = await self.client(port)
        small_buffers(client)
        client.write(UPLOAD % self.total)
        pour = Pour(client, numbered(self.total))
        self.assertLess(await pour.stopped() * 65536, self.bound)

    async def test_second_answer(self) -> None:
        """A pipelined request does not get its answer past a client that has not taken the first one."""
        pieces = numbered(self.total)
        pour: Deferred[Pour] = Deferred()

        async def script(stream: Stream) -> None:
            small_buffers(stream)
            if (await read_request(stream)).method == "POST":
                text = chunk({"content": "x" * 16 * MIB}, "stop")
                respond(stream, 200, text + DONE, [("Content-Type", "text/event-stream")])
                return
            stream.write(head(200, [("Content-Length", str(self.total))]))
            pour.callback(Pour(stream, pieces))
            await stream.rest()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        small_buffers(client)
        client.transport.pauseProducing()
        send_request(client, "POST", CHAT, CHAT_BODY)
        client.write(GET)
        poured = await pour
        self.assertLess(await poured.stopped() * 65536, self.bound)


class ClientGoneTests(LoopbackTestCase):
    """A client that leaves takes its upstream request with it, at once."""

    async def leave(
        self,
        request: bytes,
        answer: bytes,
        seen: bytes,
        leave: Callable[[Stream], object],
        tls: Any = None,
    ) -> None:
        """The upstream's connection ends once the client, having got `seen`, leaves."""
        started: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            await stream.until(b"first" if request.endswith(b"first") else b"\r\n\r\n")
            stream.write(answer)
            started.callback(stream)
            await stream.rest()

        upstream = await self.upstream(script, tls)
        client = await self.client(await self.proxy(upstream.url))
        client.write(request)
        stream = await started
        if seen:
            await client.until(seen)
        leave(client)
        await stream.gone()

    async def every_way(self, request: bytes, answer: bytes, seen: bytes) -> None:
        trust(self)
        ways: list[Callable[[Stream], object]] = [
            Stream.close,
            Stream.abort,
            lambda stream: stream.transport.loseWriteConnection(),
        ]
        for tls in (None, server_context("127.0.0.1")):
            for way in ways:
                await self.leave(request, answer, seen, way, tls)

    async def test_before_the_head(self) -> None:
        """Before the answer began; a client that only half-closed has gone, too; over TLS as well."""
        await self.every_way(GET, b"", b"")

    async def test_inside_the_head(self) -> None:
        """When half a head is there."""
        await self.every_way(GET, b"HTTP/1.1 200 OK\r\nX-A", b"")

    async def test_in_the_body(self) -> None:
        """When the answer is on its way."""
        await self.every_way(GET, event_stream_head() + b"3\r\nhel\r\n", b"hel")

    async def test_in_an_upload(self) -> None:
        """When the client has not sent all."""
        await self.every_way(UPLOAD % 100 + b"first", b"", b"")
        await self.every_way(CHUNKED_UPLOAD + b"5\r\nfirst", b"", b"")

    async def test_in_an_upload_with_an_early_answer(self) -> None:
        """When the client has not sent all, and the answer is on its way."""
        await self.every_way(UPLOAD % 100 + b"first", event_stream_head() + b"3\r\nhel\r\n", b"hel")

    async def test_held_call(self) -> None:
        """A streaming JSON call, whose body was held."""
        body = b'{"model": "m", "stream": true}'
        call = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{': '.join(JSON)}\r\nContent-Length: {len(body)}\r\n\r\n"
        await self.every_way(call.encode() + body, event_stream_head() + b"3\r\nhel\r\n", b"hel")

    async def test_while_collecting(self) -> None:
        """A client that leaves in the middle of a JSON call is forgotten, and nothing is dialled."""

        async def script(stream: Stream) -> None:
            raise AssertionError

        upstream = await self.upstream(script)
        lines: list[Any] = []
        logged: Deferred[None] = Deferred()

        class Log(RequestLog):
            def request(self, *args: Any) -> None:
                lines.append(args)
                logged.callback(None)

        client = await self.client(await self.proxy(upstream.url, log=Log()))
        client.write(
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{': '.join(JSON)}\r\nContent-Length: 99\r\n\r\n{{".encode()
        )
        await turns()
        client.abort()
        await logged
        self.assertEqual(lines[0][-1].status, 499)
        self.assertEqual(upstream.connections, [])

    async def test_while_paused(self) -> None:
        """A client that stopped reading before it leaves."""

        async def script(stream: Stream) -> None:
            small_buffers(stream)
            await stream.until(b"\r\n\r\n")
            stream.write(head(200))
            started.callback((stream, Pour(stream, numbered(64 * MIB))))
            await stream.rest()

        started: Deferred[tuple[Stream, Pour]] = Deferred()
        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        small_buffers(client)
        client.write(GET)
        await client.until(b"\r\n\r\n")
        client.transport.pauseProducing()
        stream, pour = await started
        await pour.stopped()
        client.abort()
        await stream.gone()


class SilenceTests(LoopbackTestCase):
    """``timeoutSeconds`` is the longest silence, in either direction."""

    limits = Limits(timeout_seconds=0.5)

    async def test_before_the_head(self) -> None:
        """An upstream that does not begin to answer is a 504, and its connection is dropped."""

        async def script(stream: Stream) -> None:
            await stream.rest()

        upstream = await self.upstream(script)
        answer = await self.request(await self.proxy(upstream.url, limits=self.limits), "GET", "/v1/x")
        self.assertEqual((answer.status, answer.json()["error"]["type"]), (504, "upstream_timeout"))
        self.assertIn("0.5 seconds", answer.json()["error"]["message"])
        await upstream.connections[0].gone()

    async def test_in_the_body(self) -> None:
        """One that falls silent in its answer breaks it off; what came is there."""

        async def script(stream: Stream) -> None:
            await stream.until(b"\r\n\r\n")
            stream.write(event_stream_head())
            stream.chunk(b"hello")
            await stream.rest()

        upstream = await self.upstream(script)
        answer = await self.request(await self.proxy(upstream.url, limits=self.limits), "GET", "/v1/x")
        self.assertEqual((answer.body, answer.complete), (b"hello", False))
        await upstream.connections[0].gone()

    async def test_upload(self) -> None:
        """A client that stops in the middle of an upload gets a 504; so does one in the middle of a call."""

        async def script(stream: Stream) -> None:
            await stream.rest()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, limits=self.limits)
        for target, headers in [("/v1/files", ""), (CHAT, f"{': '.join(JSON)}\r\n")]:
            client = await self.client(port)
            client.write(
                f"POST {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 9\r\n\r\n{{".encode()
            )
            answer = await read_response(client)
            self.assertEqual((answer.status, answer.json()["error"]["type"]), (504, "upstream_timeout"))
            self.assertIn("upload", answer.json()["error"]["message"])
        self.assertEqual(len(upstream.connections), 1)
        await upstream.connections[0].gone()
