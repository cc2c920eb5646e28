"""Captured exchanges, made through real sockets."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

from twisted.internet.defer import Deferred

from stream_proxy import AdapterConfig, AdapterResource, Limits
from stream_proxy.downstream.request import ProxyRequest
from stream_proxy.observe.capture.exchange import CapturedExchange
from tests.support.captures import as_har, as_lines, body_of, captured, capturing
from tests.support.conversion import EVENTS, START, ConversionTestCase
from tests.support.loopback import LoopbackTestCase
from tests.support.payloads import CHAT, CHAT_BODY, DONE, HELLO, chunk, event
from tests.support.sessions import KEY, TEXT, WebSocketTestCase, close_frame, frame
from tests.support.stage import eventually
from tests.support.wire import (
    Stream,
    event_stream_head,
    read_request,
    respond,
    send_request,
)

END = chunk({"content": "lo"}, "stop") + DONE


class ExchangeTests(ConversionTestCase):
    """A capture holds what the client's side saw, and what the upstream sent, with times."""

    def setUp(self) -> None:
        super().setUp()
        self.ledger, self.capture = capturing()

    async def one(self) -> CapturedExchange:
        """Return the one exchange, once it has ended."""
        (exchange,) = await captured(self.capture)
        self.assertEqual(self.ledger.live, {})
        return exchange

    async def test_converted(self) -> None:
        """A converted call has the JSON that the client got, and the events that it was made of."""
        response = await self.asked(
            lambda stream: respond(stream, 200, HELLO, [EVENTS]), ledger=self.ledger, name="main"
        )
        self.assert_hello(response)
        await self.one()
        (line,) = as_lines(self.capture)
        self.assertEqual((line["rule"], line["mode"], line["status"]), ("main", "converted", 200))
        self.assertEqual(line["request"]["target"], CHAT)
        self.assertEqual(json.loads(body_of(line["request"])), CHAT_BODY)
        self.assertEqual(json.loads(body_of(line["response"])), response.json())
        (upstream,) = line["upstreamResponses"]
        self.assertEqual(body_of(upstream), HELLO.decode())
        self.assertEqual((line["response"]["whole"], upstream["whole"]), (True, True))

    async def test_passed(self) -> None:
        """A response that passes is held once, although it was inspected."""
        error = b'{"error": {"message": "no"}}'
        await self.asked(lambda stream: respond(stream, 429, error), ledger=self.ledger)
        exchange = await self.one()
        (line,) = as_lines(self.capture)
        self.assertEqual(body_of(line["response"]), error.decode())
        self.assertNotIn("upstreamResponses", line)
        self.assertEqual(self.capture.ring.size, exchange.size)

    async def test_streamed(self) -> None:
        """A relayed stream has its pieces as they came, each with its time, and its events in the HAR."""
        more: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head([("x-request-id", "r1")]))
            stream.chunk(START)
            await more
            stream.chunk(END)
            stream.chunk(b"")

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, ledger=self.ledger)
        client = await self.client(port)
        send_request(client, "POST", CHAT, {**CHAT_BODY, "stream": True})
        await client.until(b"Hel")
        more.callback(None)
        response = await read_response_body(client)
        self.assertIn(b"[DONE]", response)
        await self.one()
        (line,) = as_lines(self.capture)
        pieces = line["response"]["body"]
        self.assertEqual([text.encode() for _, text in pieces], [START, END])
        times = [0.0, line["response"]["at"], *(at for at, _ in pieces), line["steps"]["ended"]]
        self.assertEqual(times, sorted(times))
        (entry,) = as_har(self.capture)["log"]["entries"]
        messages = entry["_eventSourceMessages"]
        self.assertEqual([each["eventName"] for each in messages], ["message"] * 3)
        self.assertEqual(messages[-1]["data"], "[DONE]")
        self.assertEqual(entry["response"]["content"]["text"].encode(), START + END)

    async def test_upload(self) -> None:
        """An upload that passes as it comes is captured; bytes that are no text are in Base64."""
        data = bytes(range(256)) * 1000

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 200, b"\xff\xfe")

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, ledger=self.ledger)
        await self.request(port, target="/v1/files", body=data)
        exchange = await self.one()
        self.assertEqual(b"".join([piece for _, piece in exchange.request.pieces]), data)
        (line,) = as_lines(self.capture)
        self.assertEqual(line["request"]["encoding"], "base64")
        (entry,) = as_har(self.capture)["log"]["entries"]
        self.assertEqual(entry["response"]["content"]["encoding"], "base64")
        self.assertEqual(entry["response"]["content"]["text"], "//4=")

    async def test_own_error(self) -> None:
        """An error of the proxy's own is in the capture as the client got it."""
        response = await self.asked(
            lambda stream: stream.close(), ledger=self.ledger, limits=Limits(timeout_seconds=5)
        )
        await self.one()
        (line,) = as_lines(self.capture)
        self.assertEqual((line["status"], line["response"]["status"]), (response.status, response.status))
        self.assertEqual(body_of(line["response"]).encode(), response.body)
        self.assertIn("problem", line)

    async def test_gone(self) -> None:
        """A call whose client leaves has what the upstream had sent, and no response."""
        gone: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(START)
            await stream.gone()
            gone.callback(None)

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, ledger=self.ledger)
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY)
        self.assertTrue(await eventually(lambda: any(each.read for each in self.ledger.live.values())))
        client.abort()
        await gone
        await self.one()
        (line,) = as_lines(self.capture)
        self.assertEqual(line["status"], 499)
        self.assertNotIn("response", line)
        (entry, stream) = as_har(self.capture)["log"]["entries"]
        self.assertEqual((entry["response"]["status"], stream["_leg"]), (0, "upstream"))
        self.assertFalse(stream["response"]["_whole"])

    async def test_adapted(self) -> None:
        """An adapted call has the service's stream behind the one that the client got."""
        events = event({"text": "Hel"}) + event({"text": "lo"})
        await self.asked(
            lambda stream: respond(stream, 200, events, [EVENTS]),
            resource=lambda url, **options: AdapterResource(url, AdapterConfig(content="text"), **options),
            body={**CHAT_BODY, "model": "gpt-3.5-turbo", "stream": True},
            ledger=self.ledger,
        )
        await self.one()
        (line,) = as_lines(self.capture)
        self.assertEqual(line["mode"], "adapted")
        self.assertIn('"content":"Hel', body_of(line["response"]))
        self.assertEqual(body_of(line["upstreamResponses"][0]).encode(), events)

    async def test_heads_only(self) -> None:
        """Without bodies there are heads and times; long heads are cut, and say so."""
        self.capture.change(always=True, megabytes=1, bodies=False, secrets=())
        long = [(f"X-Long-{number}", "x" * 1000) for number in range(9)]
        await self.asked(
            lambda stream: respond(stream, 200, HELLO, [EVENTS]), ledger=self.ledger, headers=long
        )
        exchange = await self.one()
        (line,) = as_lines(self.capture)
        self.assertEqual(line["request"]["cut"], "bodies are not kept")
        self.assertNotIn("body", line["response"])
        self.assertEqual(line["response"]["status"], 200)
        self.assertEqual(line["request"]["headers"][-1][0], "X-Capture-Cut")
        self.assertLess(exchange.size, 3 * 8192)

    async def test_next(self) -> None:
        """As many of the next requests are captured as are asked for; then the ledger knows of none."""
        self.capture.change(always=False, megabytes=1, bodies=True, secrets=())
        self.assertIsNone(self.ledger.capture)

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                respond(stream, 200, b"{}")

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, ledger=self.ledger)
        await self.request(port, "GET", "/v1/0")
        self.capture.want(2)
        for number in range(1, 5):
            await self.request(port, "GET", f"/v1/{number}")
        await captured(self.capture, 2)
        self.assertEqual([line["request"]["target"] for line in as_lines(self.capture)], ["/v1/1", "/v1/2"])
        self.assertIsNone(self.ledger.capture)


async def read_response_body(client: Stream) -> bytes:
    """Read the chunks of a response to their end."""
    return await client.until(b"0\r\n\r\n")


class SocketTests(WebSocketTestCase):
    """WebSockets are captured as messages."""

    async def test_messages(self) -> None:
        """Messages have a direction and a time, whatever frames they came in; the close is the last."""
        ledger, capture = capturing()
        pair = await self.open(ledger=ledger)
        client, server = pair.client, pair.server
        parts = (
            frame(TEXT, b"hel", fin=False, key=KEY) + frame(9, b"ping", key=KEY) + frame(0, b"lo", key=KEY)
        )
        for piece in (parts[:3], parts[3:12], parts[12:]):
            client.write(piece)
        await server.until(parts[-6:])
        server.write(frame(2, b"\x00\xff") + frame(TEXT, b"x" * 70_000))
        await client.until(b"x" * 1000)
        server.write(close_frame(1000, "bye"))
        await client.until(b"bye")
        client.write(close_frame(1000, client=True))
        await self.ended()
        await captured(capture)
        (entry,) = as_har(capture)["log"]["entries"]
        messages = [(each["type"], each["opcode"], each["data"]) for each in entry["_webSocketMessages"]]
        self.assertEqual(
            messages,
            [
                ("send", 1, "hello"),
                ("receive", 2, "AP8="),
                ("receive", 1, "x" * 70_000),
                ("receive", 8, "A+hieWU="),
                ("send", 8, "A+g="),
            ],
        )
        self.assertEqual((entry["response"]["status"], entry["_resourceType"]), (101, "websocket"))
        times = [each["time"] for each in entry["_webSocketMessages"]]
        self.assertEqual(times, sorted(times))
        (line,) = as_lines(capture)
        self.assertEqual(line["messages"][0][1:], ["send", 1, "hello"])


class LifetimeTests(LoopbackTestCase):
    """A captured request leaves no cycle behind."""

    async def test_free(self) -> None:
        """The request is free once it has ended, without the cycle collector; its capture stays."""
        requests: list[weakref.ref[Any]] = []

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                requests.extend(
                    weakref.ref(each) for each in gc.get_objects() if isinstance(each, ProxyRequest)
                )
                respond(stream, 200, HELLO, [EVENTS])

        ledger, capture = capturing()
        upstream = await self.upstream(script)
        gc.disable()
        self.addCleanup(gc.enable)
        gc.freeze()
        self.addCleanup(gc.unfreeze)
        port = await self.proxy(upstream.url, ledger=ledger)
        for body in (CHAT_BODY, {**CHAT_BODY, "stream": True}):
            await self.request(port, body=body)
        await captured(capture, 2)
        self.assertTrue(requests)
        self.assertEqual([each() for each in requests if each() is not None], [])
