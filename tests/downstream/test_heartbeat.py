"""Heartbeats of converted calls: the early head, the spaces, and the response after them."""

from __future__ import annotations

import gzip
import json
from typing import Any

import openai

from tests.support.heartbeats import EVENTS, GZIP, REFUSED, SECONDS, SPACE, START, TIMEOUT, HeartbeatTestCase
from tests.support.loopback import in_thread, turns
from tests.support.payloads import CHAT, CHAT_BODY, HELLO
from tests.support.wire import (
    JSON,
    Stream,
    event_stream_head,
    head,
    read_head,
    read_response,
    respond,
    send_request,
)


class HeartbeatTests(HeartbeatTestCase):
    """The early head and the spaces."""

    async def test_blanks(self) -> None:
        """A head and a space go out after one interval, then a space per interval, until the response."""
        client, stream = await self.waiting()
        self.clock.advance(SECONDS - 0.1)
        await turns()
        self.assertEqual(client.received, 0)
        self.clock.advance(0.1)
        begun = await read_head(client)
        self.assertEqual(begun.line, "HTTP/1.1 200 OK")
        fields = [
            ("Content-Type", "application/json"),
            ("Transfer-Encoding", "chunked"),
            ("X-Accel-Buffering", "no"),
        ]
        self.assertEqual(sorted(begun.headers), fields)
        self.assertEqual(await client.exactly(len(SPACE)), SPACE)
        for _ in range(3):
            self.clock.advance(SECONDS)
            self.assertEqual(await client.exactly(len(SPACE)), SPACE)
        stream.write(event_stream_head() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(HELLO), HELLO))
        body = await self.body(client, begun)
        self.assert_hello(body)
        self.clock.advance(10 * SECONDS)
        await turns()
        self.assertEqual(bytes(client.buffer), b"")
        (line,) = self.events
        self.assertEqual((line["status"], line["how"], line["detail"]), (200, "converted", ""))
        self.assertGreater(line["sent"], 3)

    async def test_announced(self) -> None:
        """By default the head goes out after 80 % of what the client announces, spaces every 40 %."""
        client, _ = await self.waiting(("x-stainless-read-timeout", "10"), keep_alive_seconds="auto")
        self.clock.advance(7.9)
        await turns()
        self.assertEqual(client.received, 0)
        self.clock.advance(0.1)
        await read_head(client)
        self.assertEqual(await client.exactly(len(SPACE)), SPACE)
        self.clock.advance(4)
        self.assertEqual(await client.exactly(len(SPACE)), SPACE)

    async def test_unannounced(self) -> None:
        """By default a client that announces nothing gets its head after 240 seconds, 50 behind a hop."""
        for headers, seconds in (((), 240), ((("Via", "1.1 lb"),), 50)):
            client, _ = await self.waiting(*headers, keep_alive_seconds="auto")
            self.clock.advance(seconds - 1)
            await turns()
            self.assertEqual(client.received, 0)
            self.clock.advance(1)
            await read_head(client)

    async def test_connection_goes_on(self) -> None:
        """The client's connection accepts the next call, which starts without a heartbeat."""
        client, stream, begun = await self.begun()
        respond(stream, 200, HELLO, [EVENTS])
        self.assert_hello(await self.body(client, begun))
        asked = self.asked
        send_request(client, "POST", CHAT, CHAT_BODY)
        respond(await asked, *REFUSED)
        response = await read_response(client)
        self.assertEqual((response.status, response.get("content-length")), (429, str(len(response.body))))

    async def test_http_1_0(self) -> None:
        """An HTTP/1.0 client gets the same, ended by the close of its connection."""
        port = await self.listening()
        asked = self.asked
        client = await self.client(port)
        body = json.dumps(CHAT_BODY).encode()
        client.write(f"POST {CHAT} HTTP/1.0\r\nContent-Type: application/json\r\n".encode())
        client.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        stream = await asked
        self.clock.advance(SECONDS)
        begun = await read_head(client)
        self.assertEqual(begun.all("transfer-encoding") + begun.all("content-length"), [])
        self.clock.advance(SECONDS)
        self.assertEqual(await client.exactly(1), b" ")
        respond(stream, 200, HELLO, [EVENTS])
        self.assert_hello(json.loads(await client.rest()))

    async def test_known_head(self) -> None:
        """If the upstream's head has arrived, its status and fields go out with ours."""
        client, stream = await self.waiting()
        fields = [
            ("X-Request-Id", "r1"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("X-Accel-Buffering", "no"),
        ]
        packed = gzip.compress(HELLO)
        length = ("Content-Length", str(len(packed)))
        await self.moved(lambda: stream.write(head(201, [EVENTS, GZIP, length, *fields], "Made")))
        self.clock.advance(SECONDS)
        begun = await read_head(client)
        self.assertEqual(begun.line, "HTTP/1.1 201 Made")
        for name, _ in fields:
            self.assertEqual(begun.all(name), [other for known, other in fields if known == name])
        self.assertEqual(begun.all("content-type"), ["application/json"])
        self.assertEqual(begun.all("content-encoding") + begun.all("content-length"), [])
        stream.write(packed)
        self.assert_hello(await self.body(client, begun))

    async def test_moving_stream(self) -> None:
        """Spaces also go out while the stream is moving: the client does not see that it is."""
        client, stream, begun = await self.begun()
        await self.moved(lambda: stream.write(event_stream_head() + b"%x\r\n%b\r\n" % (len(START), START)))
        self.clock.advance(SECONDS)
        self.assertEqual(await client.exactly(len(SPACE)), SPACE)
        rest = HELLO.removeprefix(START)
        stream.chunk(rest)
        self.assert_hello(await self.body(client, begun))

    async def test_slow_reader(self) -> None:
        """A client that does not read gets no spaces until it does."""
        client, stream, begun = await self.begun()
        (response,) = self.responses
        channel: Any = response._request.channel
        channel.pauseProducing()
        sent = response.sent
        self.clock.advance(SECONDS)
        self.clock.advance(SECONDS)
        self.assertEqual(response.sent, sent)
        channel.resumeProducing()
        self.clock.advance(SECONDS)
        self.assertEqual(response.sent, sent + 1)
        self.assertEqual(await client.exactly(len(SPACE)), SPACE)
        channel.pauseProducing()
        respond(stream, 200, HELLO, [EVENTS])
        self.assert_hello(await self.body(client, begun))

    async def test_off(self) -> None:
        """Without an interval nothing goes out before the response."""
        client, stream = await self.waiting(keep_alive_seconds=0)
        self.clock.advance(TIMEOUT - 1)
        await turns()
        self.assertEqual(client.received, 0)
        respond(stream, *REFUSED)
        self.assertEqual((await read_response(client)).status, 429)

    async def test_gone(self) -> None:
        """A client that leaves ends the heartbeat and the upstream's call."""
        client, stream, _ = await self.begun()
        client.close()
        await stream.gone()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        (line,) = self.events
        self.assertEqual((line["status"], line["sent"]), (499, 2))


class EarlyTests(HeartbeatTestCase):
    """Responses that begin within the first interval."""

    async def test_in_time(self) -> None:
        """A response in time is sent as usual, and leaves no timer."""
        for status, body, said in ((*REFUSED, JSON), (200, HELLO, EVENTS), (503, b"<html>", ("X", "y"))):
            client, stream = await self.waiting()
            self.clock.advance(SECONDS - 0.1)
            respond(stream, status, body, [said])
            response = await read_response(client)
            self.assertEqual((response.status, response.all("transfer-encoding")), (status, []))
            self.assertEqual(response.get("content-length"), str(len(response.body)))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_status_in_time(self) -> None:
        """An error status that arrived in time becomes the client's status, however long its body takes."""
        client, stream = await self.waiting()
        body = REFUSED[1]
        await self.moved(lambda: stream.write(head(429, [JSON, ("Content-Length", str(len(body)))])))
        self.clock.advance(SECONDS)
        begun = await read_head(client)
        self.assertEqual((begun.status, begun.get("content-length")), (429, str(len(body))))
        stream.write(body)
        self.assertEqual(await client.exactly(len(body)), body)
        await turns()
        self.assertEqual(
            ([line["status"] for line in self.events], self.clock.getDelayedCalls()), ([429], [])
        )

    async def test_refusal_in_time(self) -> None:
        """The head of a refusal that may lead to a second attempt is held back, with all its fields."""
        client, stream = await self.waiting()
        body = b'{"error": {"param": "stream_options"}}'
        fields = [JSON, ("X-Refused", "1"), ("Content-Length", str(len(body)))]
        await self.moved(lambda: stream.write(head(400, fields)))
        self.clock.advance(SECONDS)
        begun = await read_head(client)
        self.assertEqual((begun.status, begun.all("x-refused")), (200, []))
        asked = self.asked
        stream.write(body)
        respond(await asked, 200, HELLO, [EVENTS])
        self.assert_hello(await self.body(client, begun))

    async def test_json_under_way(self) -> None:
        """JSON whose beginning was relayed in time gets no spaces inside."""
        client, stream = await self.waiting()
        body = b'{"error": "x"}'
        stream.write(head(200, [JSON, ("Content-Length", str(len(body)))]) + body[:8])
        begun = await read_head(client)
        self.clock.advance(3 * SECONDS)
        stream.write(body[8:])
        self.assertEqual((begun.status, await client.exactly(len(body))), (200, body))


class SDKTests(HeartbeatTestCase):
    """Heartbeats as the real ``openai`` SDK sees them."""

    async def test_create(self) -> None:
        """The SDK accepts a response after spaces."""
        port = await self.listening()
        asked = self.asked

        def run() -> Any:
            base = f"http://127.0.0.1:{port}/v1"
            with openai.OpenAI(base_url=base, api_key="sk-test", max_retries=0) as client:
                return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])

        done = in_thread(run)
        stream = await asked
        for _ in range(4):
            self.clock.advance(SECONDS)
            await turns()
        respond(stream, 200, HELLO, [EVENTS])
        self.assertEqual((await done).choices[0].message.content, "Hello")


class PacingTests(HeartbeatTestCase):
    """Reads that decode to far more than one reactor turn should process."""

    async def unpacking(self, data: bytes) -> tuple[Stream, Stream]:
        """Wait until the proxy has begun to decode `data` and continues in the next reactor turn."""
        client, stream = await self.waiting()
        stream.write(event_stream_head([GZIP]))
        stream.chunk(gzip.compress(data))
        while len(self.clock.getDelayedCalls()) < 3:
            await turns(1)
        return client, stream

    async def test_answer(self) -> None:
        """The rest is decoded in later turns, and the client gets its response."""
        client, _ = await self.unpacking(b": x\n" * 500_000 + HELLO)
        await turns()
        self.assertEqual(client.received, 0)
        self.clock.advance(0)
        response = await read_response(client)
        self.assert_hello(response.json())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_gone(self) -> None:
        """A client that leaves ends the decoding."""
        client, stream = await self.unpacking(b": x\n" * 500_000 + HELLO)
        client.close()
        await stream.gone()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_relayed(self) -> None:
        """A body that turns out not to be a stream is relayed unchanged, including what has been decoded."""
        client, stream = await self.waiting()
        packed = gzip.compress(b"\n" * 3 + b"<html>" + b" " * 5_000_000)
        respond(stream, 200, packed, [("Content-Type", "text/html"), GZIP])
        response = await read_response(client)
        self.assertEqual((response.body, response.complete), (packed, True))
        self.assertEqual(self.clock.getDelayedCalls(), [])
