"""When a client leaves, its call goes on if the upstream has been asked and there is something to fetch."""

from __future__ import annotations

import zlib

from tests.support.payloads import CHAT, CHAT_BODY, HELLO, event
from tests.support.resuming import KEY, RESUMED, ResumingTestCase, again
from tests.support.stage import eventually
from tests.support.wire import JSON, Stream, event_stream_head, read_response, respond, send_request

EVENTS = ("Content-Type", "text/event-stream")
REFUSED = b'{"error": {"message": "stream_options: extra fields not permitted"}}'


class LeavingTests(ResumingTestCase):
    """The states in which a client leaves."""

    async def fetched(self, port: int, stream: Stream, count: int = 1) -> None:
        """Fail unless the retry gets what `stream` answers now, without a further call."""
        asked = len(self.asked)
        respond(stream, 200, HELLO, [EVENTS])
        retry = await read_response(await self.call(port, KEY, again(count)))
        self.assertEqual((retry.status, retry.get(RESUMED), len(self.asked)), (200, "true", asked))
        await self.nothing_left()

    async def ends(self, client: Stream) -> None:
        """Let a client leave, and fail unless nothing is left of its call."""
        client.abort()
        self.assertTrue(await eventually(lambda: self.due() or len(self.ledger.live) <= self.others))
        self.assertEqual(len(self.lost.orphans), 0)

    others = 0

    async def test_early_head(self) -> None:
        """After blanks, too."""
        port = await self.start(keep_alive_seconds=5)
        client = await self.call(port, KEY)
        stream = await self.arrived(1)
        self.clock.advance(5)
        await client.until(b"\r\n\r\n")
        await self.leave(client, 1)
        await self.fetched(port, stream)

    async def test_second_attempt(self) -> None:
        """During a second attempt, too."""
        port = await self.start()
        client = await self.call(port, KEY)
        respond(await self.arrived(1), 400, REFUSED, [JSON])
        stream = await self.arrived(2)
        await self.leave(client, 1)
        await self.fetched(port, stream)

    async def test_refused_later(self) -> None:
        """A call that goes on alone makes its second attempt."""
        port = await self.start()
        client = await self.call(port, KEY)
        stream = await self.arrived(1)
        await self.leave(client, 1)
        respond(stream, 400, REFUSED, [JSON])
        await self.fetched(port, await self.arrived(2))

    async def test_unconverted(self) -> None:
        """An answer of an upstream that refuses streams is asked for uncompressed, so that it can be kept."""
        port = await self.start()
        client = await self.call(port, KEY, ("Accept-Encoding", "br"))
        stream = await self.arrived(1)
        respond(stream, 400, b'{"error": {"message": "no streams", "param": "stream"}}', [JSON])
        stream = await self.arrived(2)
        self.assertEqual(self.requests[-1].get("accept-encoding"), "identity")
        await self.leave(client, 1)
        respond(stream, 200, b'{"choices": []}', [JSON])
        retry = await read_response(await self.call(port, KEY, ("Accept-Encoding", "br"), again(1)))
        self.assertEqual((retry.get(RESUMED), retry.json()), ("true", {"choices": []}))

    async def test_queued(self) -> None:
        """A call that waits for a slot ends."""
        port = await self.start(max_upstream_connections=1)
        await self.call(port, KEY)
        await self.arrived(1)
        client = await self.call(port, KEY)
        self.assertTrue(await eventually(lambda: len(self.ledger.live) == 2))
        self.others = 1
        await self.ends(client)

    async def test_upload(self) -> None:
        """A call whose body is not whole ends."""
        port = await self.start()
        client = await self.client(port)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\n"
        client.write(head.encode() + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        self.assertTrue(await eventually(lambda: len(self.ledger.live) == 1))
        await self.ends(client)
        await self.nothing_left()

    async def test_relayed(self) -> None:
        """A call whose answer is passed on as it comes ends."""
        port = await self.start()
        client = await self.call(port, KEY)
        stream = await self.arrived(1)
        stream.write(
            b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"a": 1'
        )
        await client.some()
        await self.ends(client)
        await self.gone(stream)
        await self.nothing_left()

    async def test_closing_clients(self) -> None:
        """Clients of HTTP/1.0, those that close, and those that close one direction leave orphans as well."""
        for line, fields in (("HTTP/1.0", ""), ("HTTP/1.1", "Connection: close\r\n"), ("HTTP/1.1", "")):
            port = await self.start()
            client = await self.client(port)
            body = b'{"model": "m", "messages": []}'
            head = f"POST {CHAT} {line}\r\nHost: x\r\nAuthorization: Bearer a\r\n{fields}"
            more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            client.write(f"{head}{more}\r\n".encode() + body)
            stream = await self.arrived(1)
            client.close()
            self.assertTrue(await eventually(lambda: len(self.lost.orphans) == 1))
            respond(stream, 200, HELLO, [EVENTS])
            retry = await self.client(port)
            retry.write(f"{head}x-stainless-retry-count: 1\r\n{more}\r\n".encode() + body)
            response = await read_response(retry)
            self.assertEqual((response.status, response.get(RESUMED)), (200, "true"))
            await self.nothing_left()

    async def test_pipelined(self) -> None:
        """A retry that was sent behind its call on one connection waits its turn, and leaves with it."""
        port = await self.start()
        client = await self.client(port)
        for count in (0, 1):
            send_request(client, "POST", CHAT, CHAT_BODY, [KEY, again(count)])
        stream = await self.arrived(1)
        await self.leave(client, 1)
        await self.fetched(port, stream)

    async def test_operator(self) -> None:
        """An operator who cancels a call after its early head ends it."""
        port = await self.start(keep_alive_seconds=5)
        client = await self.call(port, KEY)
        stream = await self.arrived(1)
        self.clock.advance(5)
        await client.until(b"\r\n\r\n")
        (record,) = self.ledger.live.values()
        assert record.cancel is not None
        record.cancel()
        await self.gone(stream)
        await self.nothing_left()

    async def test_old_configuration(self) -> None:
        """A call that began before its rule was changed leaves nothing behind."""
        port = await self.start()
        client = await self.call(port, KEY)
        stream = await self.arrived(1)
        await self.resource.close()
        client.abort()
        await self.gone(stream)
        await self.nothing_left()

    async def test_no_more_calls(self) -> None:
        """Limits that a reload has changed hold for the next call that is lost."""
        port = await self.start()
        self.lost.reload(0, 1)
        client = await self.call(port, KEY)
        stream = await self.arrived(1)
        client.abort()
        await self.gone(stream)
        await self.nothing_left()

    async def test_error_of_megabytes(self) -> None:
        """An error counts with its size, and a large one is not remembered."""
        port = await self.start(keep_alive_seconds=5)
        client = await self.call(port, KEY)
        stream = await self.arrived(1)
        await self.leave(client, 1)
        large = event({"error": {"message": "x" * 200_000, "status": 400}})
        respond(stream, 200, large, [EVENTS])
        self.assertTrue(await eventually(lambda: any(each.failed for each in self.lost.orphans._all())))
        self.assertGreater(self.lost.orphans.held, 200_000)
        self.lost.forget()
        client = await self.call(port, KEY)
        stream = await self.arrived(2)
        self.clock.advance(5)
        await client.until(b"\r\n\r\n")
        respond(stream, 200, large, [EVENTS])
        await client.gone()
        self.assertFalse(self.lost.late_errors)

    async def test_compressed(self) -> None:
        """What a compressed stream holds counts as it is decoded."""
        port = await self.start(resume_max_bytes=100_000)
        client = await self.call(port, KEY)
        stream = await self.arrived(1)
        await self.leave(client, 1)
        stream.write(event_stream_head([("Content-Encoding", "deflate")]))
        packer = zlib.compressobj()
        text = event({"choices": [{"delta": {"content": "x" * 1000}}]}) * 300
        stream.chunk(packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH))
        self.assertTrue(await eventually(lambda: self.due() or stream.lost is not None))
        await self.nothing_left()
