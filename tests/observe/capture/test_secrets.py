"""Secrets in every place of an exchange: none is in any download."""

from __future__ import annotations

import gzip
import json
from typing import Any

from stream_proxy.http.access import Access
from stream_proxy.observe.capture.capture import Capture
from tests.support.captures import captured, capturing, everything
from tests.support.conversion import EVENTS
from tests.support.loopback import LoopbackTestCase, turns
from tests.support.payloads import CHAT, CHAT_BODY, DONE, chunk
from tests.support.sessions import KEY, TEXT, WebSocketTestCase, close_frame, frame, read_frame
from tests.support.wire import JSON, Headers, Stream, event_stream_head, read_request, respond

#: Every secret has this in it.
MARK = b"MARKED"
CLIENT_KEY, UPSTREAM_KEY = b"MARKED-client-key", b"MARKED/upstream+key"
ADMIN_KEY, ADAPTER_KEY = b"MARKED-admin-key", b"MARKED-adapter-key"
CONFIGURED = (CLIENT_KEY, UPSTREAM_KEY, ADMIN_KEY, ADAPTER_KEY)
#: What a request shows as a credential, which its answer may quote.
SHOWN = ("MARKED-shown-field", "MARKED-shown-query", "MARKED-shown-cookie")
HEADERS = (
    ("Authorization", f"Bearer {CLIENT_KEY.decode()}"),
    ("X-Api-Key", SHOWN[0]),
    ("Cookie", f"a={SHOWN[2]}"),
    ("X-Session-Id", "MARKED-header"),
    ("My-Secret", "MARKED-header"),
    ("X-Token", "MARKED-header"),
    ("Referer", "https://x/?access_token=MARKED-referer"),
    ("X-Note", f"quoted {ADMIN_KEY.decode()}"),
)
TARGET = f"?api-key={SHOWN[1]}&key=MARKED-target&note={ADAPTER_KEY.decode()}&other=%4dARKED%2dadmin-key"
ANSWER_HEADERS = (
    ("Set-Cookie", "sid=MARKED-cookie"),
    ("X-Auth-Answer", "MARKED-answer"),
    ("Location", "https://x/?sig=MARKED-location"),
    ("X-Quoted", UPSTREAM_KEY.decode()),
)
#: Members that are secrets by their names.
MEMBERS: dict[str, Any] = {
    "client_secret": {"value": "MARKED-member", "expires_at": 1},
    "api_key": "MARKED-member",
    "tools": [{"type": "mcp", "authorization": "MARKED-member", "headers": {"Any": "MARKED-member"}}],
    "value": "ek_MARKED",
    "arguments": json.dumps({"password": "MARKED-member", "session_token": "MARKED-member"}),
}
#: A text in which secrets stand in the open, as some encoders of JSON write slashes.
QUOTED = " and ".join(key.decode() for key in CONFIGURED)


def as_json(value: object) -> bytes:
    """Return JSON in which every slash is escaped."""
    return json.dumps(value).replace("/", "\\/").encode()


class SecretTests(LoopbackTestCase):
    """Marked keys in all places of HTTP exchanges."""

    def setUp(self) -> None:
        super().setUp()
        self.ledger, self.capture = capturing(secrets=CONFIGURED)

    async def run_one(self, body: bytes, answer: bytes, headers: Headers, answer_headers: Headers) -> None:
        """Send one call with secrets in all heads, and answer it, each body in small pieces."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head() if answer_headers == () else b"")
            if answer_headers == ():
                for at in range(0, len(answer), 11):
                    stream.chunk(answer[at : at + 11])
                    await turns(1)  # each is a read of its own
                stream.chunk(b"")
            else:
                respond(stream, 200, answer, [*answer_headers, *ANSWER_HEADERS])

        upstream = await self.upstream(script)
        access = Access([CLIENT_KEY], UPSTREAM_KEY)
        port = await self.proxy(upstream.url, ledger=self.ledger, access=access)
        client = [field for field in HEADERS if field[0] != "X-Api-Key"]
        await self.request(port, target=CHAT + TARGET, body=body, headers=[*client, *headers])

    async def check(self, count: int = 1) -> str:
        """Expect no secret in any download, but the rest; return the downloads."""
        exchanges = await captured(self.capture, count)
        downloads = everything(self.capture)
        at = downloads.find(MARK)
        self.assertEqual(at, -1, downloads[max(0, at - 200) : at + 60])
        held = b"".join(piece for each in exchanges for _, piece in each.request.pieces)
        self.assertNotIn(MARK, held)
        self.assertIn(b"***", downloads)
        return downloads.decode()

    async def test_converted(self) -> None:
        """A converted call: its JSON, its events, its answer."""
        body = {
            **CHAT_BODY,
            **MEMBERS,
            "model": ADMIN_KEY.decode(),
            "messages": [{"role": "user", "content": QUOTED}],
        }
        events = chunk({"role": "assistant", "content": QUOTED}) + chunk({"content": "kept"}, "stop") + DONE
        await self.run_one(as_json(body), events, [JSON], [EVENTS])
        self.assertIn("kept", await self.check())

    async def test_cut(self) -> None:
        """A stream whose reads are cut within secrets."""
        body = as_json({**CHAT_BODY, "stream": True, **MEMBERS, "note": QUOTED})
        events = chunk({"content": QUOTED}, **MEMBERS) + chunk({"content": "kept"}, "stop") + DONE
        await self.run_one(body, events, [JSON], ())
        self.assertIn("kept", await self.check())
        (exchange,) = await captured(self.capture)
        assert exchange.answer is not None
        self.assertGreater(len(exchange.answer.body.pieces), len(events) // 22)

    async def test_gzip(self) -> None:
        """Compressed bodies in both directions are looked into."""
        secret = as_json({"error": QUOTED, **MEMBERS, "z": "kept"})
        packed = gzip.compress(secret)
        await self.run_one(
            packed, packed, [JSON, ("Content-Encoding", "gzip")], [JSON, ("Content-Encoding", "gzip")]
        )
        self.assertGreaterEqual((await self.check()).count("kept"), 4)

    async def test_form(self) -> None:
        """A form has its secrets blanked by their names, as a query has."""
        form = [("Content-Type", "application/x-www-form-urlencoded")]
        await self.run_one(b"a=kept&client_secret=MARKED-form&code=MARKED-form", b"{}", form, [JSON])
        self.assertIn("kept", await self.check())

    async def test_passed(self) -> None:
        """Without keys of the proxy's own, what the client shows is known to be its secret."""

        async def script(stream: Stream) -> None:
            request = await read_request(stream)
            quoted: dict[str, Any] = {"error": {"message": f"Incorrect API key provided: {' '.join(SHOWN)}"}}
            quoted["echo"] = dict(request.headers)
            respond(stream, 401, json.dumps(quoted).encode(), [JSON])

        self.capture = Capture(self.ledger, always=True)
        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, ledger=self.ledger)
        headers = [field for field in HEADERS if field[0] != "X-Note"]
        target = CHAT + f"?api-key={SHOWN[1]}"
        await self.request(port, target=target, body=CHAT_BODY, headers=headers)
        await self.check()


class SocketSecretTests(WebSocketTestCase):
    """Marked keys in WebSockets."""

    async def test_messages(self) -> None:
        """A key subprotocol, and keys in masked messages, in fragments and across reads."""
        ledger, capture = capturing(secrets=CONFIGURED)
        protocol = ("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.MARKED-subprotocol")
        pair = await self.open([protocol], "/v1/realtime?key=MARKED-query", ledger=ledger)
        message = as_json({"type": "session.update", **MEMBERS, "note": QUOTED, "z": "kept"})
        frames = frame(TEXT, message[:40], fin=False, key=KEY) + frame(0, message[40:], key=KEY)
        for at in range(0, len(frames), 100):
            pair.client.write(frames[at : at + 100])
        await read_frame(pair.server)
        await read_frame(pair.server)
        pair.server.write(frame(TEXT, message) + close_frame(1000))
        await read_frame(pair.client)
        await read_frame(pair.client)
        pair.client.write(close_frame(1000, client=True))
        await self.ended()
        await captured(capture)
        downloads = everything(capture)
        at = downloads.find(MARK)
        self.assertEqual(at, -1, downloads[max(0, at - 200) : at + 60])
        self.assertGreaterEqual(downloads.count(b"kept"), 4)
