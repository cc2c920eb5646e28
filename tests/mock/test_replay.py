"""Replay: a capture of real exchanges, served again by the mock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from stream_proxy.mock import mock_site
from stream_proxy.mock.replay.recording import RecordingError, read_recording
from stream_proxy.mock.replay.resource import ReplayResource
from stream_proxy.mock.tap import Options, makeService
from stream_proxy.observe.capture import har, lines
from stream_proxy.observe.capture.capture import Capture
from tests.support.captures import captured, capturing, kept
from tests.support.conversion import EVENTS
from tests.support.loopback import reactor, turns
from tests.support.payloads import CHAT, CHAT_BODY, HELLO, chunk
from tests.support.sessions import (
    KEY,
    TEXT,
    WebSocketTestCase,
    accepted,
    close_frame,
    frame,
    handshake,
    read_frame,
)
from tests.support.stage import eventually
from tests.support.wire import (
    JSON,
    Message,
    Stream,
    event_stream_head,
    head,
    read_head,
    read_request,
    respond,
    send_request,
)

ASK = {**CHAT_BODY, "stream": True}


def as_file(capture: Capture, form: str) -> bytes:
    """Return a capture as a file that is downloaded."""
    exchanges = [(each, str(each.number), capture.epoch) for each in kept(capture)]
    if form == "har":
        entries = [b"".join(har.entries(*each)) for each in exchanges]
        return har.BEGIN + har.SEPARATOR.join(entries) + har.END
    return b"".join(b"".join(lines.line(*each)) for each in exchanges)


class ReplayTests(WebSocketTestCase):
    """A capture through the proxy is served again, out of either format."""

    async def replay(self, data: bytes, clock: Any = reactor, *, paced: bool = False) -> int:
        """Serve a recording, and return the port."""
        resource = ReplayResource(clock, read_recording(data), paced=paced)
        site = mock_site(reactor, resource=resource)
        site.noisy = False
        return await self.listen(site)

    async def ask(self, port: int, target: str, body: object = None, method: str = "POST") -> Message:
        """Send a request, and return the response."""
        return await self.request(port, method, target, body)

    async def test_everything(self) -> None:
        """Calls, streams, errors and uploads get the same answers again, in order where bodies are alike."""

        async def script(stream: Stream) -> None:
            number = 0
            while True:
                request = await read_request(stream)
                number += 1
                if request.target == CHAT:
                    respond(stream, 200, HELLO.replace(b"lo", b"lo%d" % number), [EVENTS])
                elif request.target == "/v1/failing":
                    respond(stream, 429, b'{"error": {"message": "slow"}}', [JSON, ("Retry-After", "7")])
                else:
                    body = b"\xff%d" % len(request.body)
                    respond(stream, 200, body, [("Content-Type", "audio/wav"), ("X-A", "1"), ("X-A", "2")])

        upstream = await self.upstream(script)
        asked = [
            (CHAT, CHAT_BODY),
            (CHAT, CHAT_BODY),
            (CHAT, ASK),
            (CHAT, {**CHAT_BODY, "model": "other", "api_key": "a key of the body"}),
            ("/v1/failing", {}),
            ("/v1/files", b"\xff\x00\n" * 50_000),
        ]
        for form in ("har", "jsonl"):
            ledger, capture = capturing()
            port = await self.proxy(upstream.url, ledger=ledger)
            expected = [await self.ask(port, *each) for each in asked]
            await captured(capture, len(asked))
            replay = await self.replay(as_file(capture, form))
            for each, response in zip(reversed(asked[2:]), reversed(expected[2:]), strict=True):
                self.assertEqual((await self.ask(replay, *each)).body, response.body)
            replay = await self.replay(as_file(capture, form))
            for each, response in zip(asked, expected, strict=True):
                again = await self.ask(replay, *each)
                self.assertEqual((again.status, again.body), (response.status, response.body))
                self.assertEqual(again.get("content-type"), response.get("content-type"))
            self.assertEqual((await self.ask(replay, "/v1/failing", {})).get("retry-after"), "7")
            upload = await self.ask(replay, "/v1/files", b"else")
            self.assertEqual((upload.body, upload.get("x-a")), (expected[-1].body, "1, 2"))

    async def test_behind_the_proxy(self) -> None:
        """In place of the upstream, a recording of converted calls streams what was behind them."""
        ledger, capture = capturing()
        port = await self.proxy((await self.upstream(_hello)).url, ledger=ledger)
        response = await self.ask(port, CHAT, CHAT_BODY)
        await captured(capture)
        for form in ("har", "jsonl"):
            replay = await self.replay(as_file(capture, form))
            port = await self.proxy(f"http://127.0.0.1:{replay}")
            again = await self.ask(port, CHAT, CHAT_BODY)
            self.assertEqual(again.json(), response.json())

    async def test_pace(self) -> None:
        """At the recorded pace the head and each event come when they came; or all of it at once."""
        line = {
            "request": {"method": "POST", "target": CHAT, "headers": [], "body": [[0, json.dumps(ASK)]]},
            "response": {
                "at": 1500,
                "status": 200,
                "whole": True,
                "headers": [["Content-Type", "text/event-stream"]],
                "body": [[1500, "data: 1\n\n"], [3500, "data: 2\n\n"], [3500, "data: 3\n\n"]],
            },
        }
        data = json.dumps(line).encode()
        clock = Clock()
        client = await self.client(await self.replay(data, clock, paced=True))
        send_request(client, "POST", CHAT, ASK)
        self.assertTrue(await eventually(lambda: len(clock.getDelayedCalls()) == 1))
        self.assertEqual(clock.getDelayedCalls()[0].getTime(), 1.5)
        clock.advance(1.5)
        clock.pump([0, 0])
        await client.until(b"data: 1\n\n")
        clock.advance(1.9)
        await turns()
        self.assertEqual(bytes(client.buffer), b"\r\n")
        clock.advance(0.1)
        clock.pump([0, 0])
        await client.until(b"data: 3\n\n\r\n0\r\n\r\n")
        fast = await self.replay(data)
        self.assertIn(b"data: 3", (await self.ask(fast, CHAT, ASK)).body)

    async def test_broken_off(self) -> None:
        """A response that broke off breaks off again at the same place."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(chunk({"content": "Hel"}))
            stream.close()

        ledger, capture = capturing()
        port = await self.proxy((await self.upstream(script)).url, ledger=ledger)
        response = await self.ask(port, CHAT, ASK)
        self.assertFalse(response.complete)
        await captured(capture)
        for form in ("har", "jsonl"):
            again = await self.ask(await self.replay(as_file(capture, form)), CHAT, ASK)
            self.assertEqual((again.body, again.complete), (response.body, False))

    async def test_nothing(self) -> None:
        """A request that was not recorded gets a 404 that says what there is."""
        ledger, capture = capturing()
        port = await self.proxy((await self.upstream(_hello)).url, ledger=ledger)
        await self.ask(port, CHAT + "?a=b", CHAT_BODY)
        await captured(capture)
        replay = await self.replay(as_file(capture, "har"))
        response = await self.ask(replay, "/v1/models?x=y", method="GET")
        self.assertEqual(response.status, 404)
        self.assertEqual(
            response.json()["error"]["message"],
            f"Nothing was recorded for GET /v1/models; there is: POST {CHAT} (1).",
        )
        self.assertEqual((await self.ask(replay, CHAT, {"other": 1})).status, 200)

    async def test_socket(self) -> None:
        """A WebSocket's messages follow those of the client as they did, and it closes as it did."""
        ledger, capture = capturing()
        pair = await self.open(answer=lambda request: accepted(request) + frame(TEXT, b"hi"), ledger=ledger)
        client, server = pair.client, pair.server
        await read_frame(client)
        for number in (b"1", b"2"):
            client.write(frame(TEXT, b"ask " + number, key=KEY))
            await read_frame(server)
            server.write(frame(TEXT, b"answer " + number) + frame(2, b"\xff" + number))
            await read_frame(client)
            await read_frame(client)
        server.write(close_frame(1011, "over"))
        await read_frame(client)
        client.write(close_frame(1011, client=True))
        await self.ended()
        await captured(capture)
        for form in ("har", "jsonl"):
            port = await self.replay(as_file(capture, form))
            again = await self.client(port)
            again.write(handshake())
            self.assertEqual((await read_head(again)).status, 101)
            self.assertEqual((await read_frame(again)).payload, b"hi")
            for number in (b"1", b"2"):
                again.write(frame(TEXT, b"anything", key=KEY))
                self.assertEqual((await read_frame(again)).payload, b"answer " + number)
                self.assertEqual((await read_frame(again)).payload, b"\xff" + number)
            self.assertEqual((await read_frame(again)).payload, b"\x03\xf3over")
            again.write(close_frame(1011, client=True))
            await again.gone()

    async def test_of_a_browser(self) -> None:
        """A file of Chromium's is served, too: events with or without the text of the body."""
        entry: dict[str, Any] = {
            "startedDateTime": "2026-01-01T00:00:00Z",
            "time": 1,
            "request": {"method": "GET", "url": "https://api.test/v1/events?a=b", "headers": []},
            "response": {
                "status": 200,
                "headers": [{"name": "content-type", "value": "text/event-stream"}],
                "content": {"mimeType": "text/event-stream"},
            },
            "timings": {"blocked": -1, "wait": 0, "receive": 0, "send": 0},
            "_eventSourceMessages": [
                {"time": 5.0, "eventName": "message", "eventId": "", "data": "a\nb"},
                {"time": 6.0, "eventName": "end", "eventId": "7", "data": "c"},
            ],
        }
        expected = b"data: a\ndata: b\n\nevent: end\nid: 7\ndata: c\n\n"
        for text in (None, expected.decode()):
            entry["response"]["content"]["text"] = text
            data = json.dumps({"log": {"entries": [entry]}}).encode()
            response = await self.ask(await self.replay(data), "/v1/events", method="GET")
            self.assertEqual(response.body, expected)

    def test_no_recording(self) -> None:
        """Whatever is no recording is refused with the reason."""
        line = {"request": {"method": "GET", "target": "/", "headers": []}}
        for data in (
            b"",
            b"[]",
            b"{}",
            b"hello",
            b'{"log": {}}',
            b'{"log": {"entries": [1]}}',
            b"[" * 99_999,
        ):
            with self.assertRaisesRegex(RecordingError, "is neither HAR nor|holds no exchange"):
                read_recording(data)
        with self.assertRaisesRegex(RecordingError, "holds no exchange with a response"):
            read_recording(json.dumps(line).encode())


class OptionTests(TestCase):
    """The plugin's options."""

    def test_mistakes(self) -> None:
        """A file that cannot be served, or an unknown pace, is told in one line."""
        path = self.mktemp()
        for arguments, message in (
            (["--replay", path], f"--replay {path}: cannot be read: No such file or directory"),
            (["--replay", "setup.py"], "--replay setup.py: is neither HAR nor the JSON lines of a capture"),
            (["--pace", "slow"], "--pace slow: must be recorded or fast"),
        ):
            Path("setup.py").write_text("import this")
            options = Options()
            options.parseOptions(arguments)
            with self.assertRaises(SystemExit) as raised:
                makeService(options)
            self.assertEqual(str(raised.exception), message)


async def _hello(stream: Stream) -> None:
    while True:
        await read_request(stream)
        stream.write(head(200, [EVENTS, ("Content-Length", str(len(HELLO)))]))
        stream.write(HELLO)
