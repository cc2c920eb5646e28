"""A capture of everything that the proxy does, checked by a validator of HAR, and a large one, downloaded."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from heavy_tests.calls import CLIENTS
from stream_proxy.service.admin.capture.local import LocalCapture
from stream_proxy.service.admin.capture.routes import serve_capture
from tests.service.admin.test_capture import BEARER, add
from tests.support.admin import KEY, AdminTestCase
from tests.support.captures import as_har, captured, capturing
from tests.support.conversion import EVENTS
from tests.support.har_schema import check_har
from tests.support.loopback import in_thread, reactor
from tests.support.payloads import CHAT, CHAT_BODY
from tests.support.sessions import KEY as MASK
from tests.support.sessions import TEXT, WebSocketTestCase, close_frame, frame, read_frame
from tests.support.wire import JSON, send_request


class ValidHARTests(WebSocketTestCase):
    """What the npm package har-validator says of our files."""

    async def test_validator(self) -> None:
        """Conversions, streams, uploads, errors, lost clients and WebSockets make a valid file."""
        ledger, capture = capturing()
        port = await self.proxy(await self.mock(), ledger=ledger)
        fails = ("X-Mock-Fail", "break")
        for body in (CHAT_BODY, {**CHAT_BODY, "stream": True}):
            for headers in ((), [fails], [("X-Mock-Status", "429")]):
                await self.request(port, target=CHAT, body=body, headers=headers)
        await self.request(port, "GET", "/v1/models?a=%zz&b[]=<|>\\^`")
        await self.request(port, "HEAD", "/v1/models")
        await self.request(port, "POST", "/v1/x", b"\xff\x00")
        await self.request(port, "GET", "http://other.test:80/v1/models")
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY, [("X-Mock-Fail", "hang"), JSON])
        client.close()
        pair = await self.open(ledger=ledger)
        pair.client.write(frame(TEXT, b"hi", key=MASK) + close_frame(1000, client=True))
        await read_frame(pair.server)
        pair.server.write(frame(2, b"\xff") + close_frame(1000))
        await self.ended()
        await captured(capture, 11)
        file = Path(self.mktemp())
        decoded = as_har(capture)
        entries = check_har(decoded)
        self.assertTrue(any("_webSocketMessages" in entry for entry in entries))
        self.assertTrue(any(EVENTS[1] == entry["response"]["content"]["mimeType"] for entry in entries))
        file.write_text(json.dumps(decoded))
        done = await in_thread(
            lambda: subprocess.run(
                ["node", "har.mjs", file.absolute()], cwd=CLIENTS, check=True, capture_output=True
            )
        )
        self.assertEqual(json.loads(done.stdout), {"entries": len(entries)})


class LargeTests(AdminTestCase):
    """A full ring."""

    async def test_turns(self) -> None:
        """A ring of 64 MB downloads without a long turn of the reactor."""
        ledger, capture = capturing(megabytes=64)
        service, port = self.admin([KEY])
        serve_capture(service.resource, LocalCapture(reactor, capture))
        while not capture.ring.first:
            add(ledger, capture, b'{"a": "' + b"x" * 1_000_000 + b'"}')
        turns: list[float] = []
        last = time.thread_time()

        def turn() -> None:
            nonlocal last
            now = time.thread_time()
            turns.append(now - last)
            last = now
            if running:
                reactor.callLater(0, turn)

        running = True
        reactor.callLater(0, turn)
        file = Path(self.mktemp())
        url = f"http://127.0.0.1:{port}/capture.har"
        command = ["curl", "-sS", "-o", str(file), "-H", ": ".join(BEARER), url]
        await in_thread(lambda: subprocess.run(command, check=True))
        running = False
        self.assertLess(max(turns[1:]), 0.02)
        self.assertEqual(len(check_har(json.loads(file.read_bytes()))), len(capture.ring))
