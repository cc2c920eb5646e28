"""Outcomes of converted calls after the heartbeat has sent the head: errors, JSON, second attempts."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred

from stream_proxy.errors import upstream_timeout
from stream_proxy.flows import convert
from stream_proxy.upstream import client as upstream
from tests.support.heartbeats import BLANK, EVENTS, GZIP, REFUSED, SECONDS, START, TIMEOUT, KeepAliveTestCase
from tests.support.loopback import turns
from tests.support.payloads import CHAT, CHAT_BODY, HELLO, event
from tests.support.wire import (
    JSON,
    Message,
    Stream,
    event_stream_head,
    head,
    read_head,
    read_response,
    respond,
    send_request,
)


class LateTests(KeepAliveTestCase):
    """What comes after the head."""

    async def late(
        self, act: Callable[[Stream], None] | Callable[[Stream], Awaitable[None]], **limits: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The answer's JSON and its line in the log, if the upstream does that."""
        self.events.clear()
        client, stream, begun = await self.begun(**limits)
        act(stream)
        body = await self.body(client, begun)
        self.assertEqual(begun.status, 200)
        (line,) = self.events
        return body, line

    async def test_errors(self) -> None:
        """An error is the body, ended as it should be; the log says what it is, and what was sent."""

        def broken(data: bytes) -> Callable[[Stream], None]:
            def act(stream: Stream) -> None:
                stream.write(data)
                stream.close()

            return act

        def whole(status: int, body: bytes, *fields: tuple[str, str]) -> Callable[[Stream], None]:
            return lambda stream: respond(stream, status, body, fields)

        begin = event_stream_head()
        framed = b"%x\r\n%b\r\n" % (len(START), START)
        cases: list[tuple[Callable[[Stream], None], int, str, dict[str, Any]]] = [
            (broken(b""), 502, "closed the connection", {}),
            (broken(begin), 502, "broke", {}),
            (broken(begin + framed), 502, "ended", {}),
            (broken(head(429, [JSON, ("Content-Length", "99")]) + b'{"half": '), 502, "broke", {}),
            (whole(200, START + event({"error": {"message": "m", "code": 418}}), EVENTS), 418, "m", {}),
            (whole(200, START, EVENTS), 502, "ended", {}),
            (whole(200, HELLO, EVENTS), 502, "maxResponseBytes", {"max_response_bytes": 5}),
            (whole(500, b'{"a": 1}', JSON), 502, "maxResponseBytes", {"max_response_bytes": 5}),
            (whole(503, b"<html>busy", ("Content-Type", "text/html")), 503, "status 503 and text/html", {}),
            (whole(429, b""), 429, "status 429", {}),
            (whole(302, b"", ("Location", "/x")), 502, "status 302", {}),
            (whole(200, b"<html>hi", ("Content-Type", "text/html")), 502, "status 200", {}),
            (lambda stream: stream.write(head(204)), 502, "status 204", {}),
            (whole(200, b"...", JSON, ("Content-Encoding", "br")), 502, "br", {}),
            (whole(401, b"...", JSON, ("Content-Encoding", "br")), 401, "br", {}),
            (whole(500, gzip.compress(b'{"a": 1}')[:-4], JSON, GZIP), 502, "cut off", {}),
            (whole(500, b'{"a": 1}', JSON, GZIP), 502, "decompressed", {}),
            (
                whole(200, gzip.compress(b": x\n" * 99), EVENTS, GZIP),
                502,
                "maxDecoded",
                {"max_decoded_bytes": 99},
            ),
            (lambda stream: self.clock.advance(TIMEOUT), 504, "timeoutSeconds", {}),
        ]
        for act, status, words, limits in cases:
            body, line = await self.late(act, **limits)
            self.assertEqual(sorted(body["error"]), ["code", "message", "param", "type"], words)
            self.assertIn(words, body["error"]["message"])
            self.assertEqual((line["status"], line["detail"]), (status, ", 200 had been sent"), words)
            self.assertGreater(line["sent"], 10)
        types = {429: "rate_limit_error", 503: "server_error", 401: "invalid_request_error"}
        for status, type in types.items():
            body, _ = await self.late(whole(status, b"x"))
            self.assertEqual(body["error"]["type"], type)

    async def test_unreachable(self) -> None:
        """So is an upstream that could not be reached."""
        waiting: Deferred[Any] = Deferred()
        port = await self.listening()
        self.patch(upstream.Upstream, "request", lambda *args: waiting)
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY)
        while not self.clock.getDelayedCalls():
            await turns(1)
        self.clock.advance(SECONDS)
        begun = await read_head(client)
        waiting.errback(upstream_timeout("not reached"))
        body = await self.body(client, begun)
        self.assertEqual(body["error"]["message"], "not reached")

    async def test_own_words(self) -> None:
        """JSON is passed on in the upstream's words, whatever its status, coding and type."""
        status, body = REFUSED
        bom = b"\xef\xbb\xbf"
        for said in ([JSON], [EVENTS], []):
            for coding, packed in (
                ([], body),
                ([], bom + b"\r\n " + body),
                ([GZIP], gzip.compress(body)),
                ([("Content-Encoding", "deflate")], zlib.compress(body)),
            ):
                for code in (status, 200, 500):
                    got, line = await self.late(lambda s: respond(s, code, packed, [*said, *coding]))  # noqa: B023
                    self.assertEqual((got, line["status"], line["how"]), (json.loads(body), code, "passed"))
                    detail = "" if code == 200 else ", 200 had been sent"
                    self.assertEqual((line["detail"], line["problem"]), (detail, ""))

    async def test_slow_json(self) -> None:
        """While JSON comes slowly the client goes on getting blanks: it is passed on whole."""
        client, stream, begun = await self.begun()
        body = b'{"choices":  [' + b" " * 100_000 + b"]}"
        await self.moved(
            lambda: stream.write(head(200, [JSON, ("Content-Length", str(len(body)))]) + body[:9])
        )
        self.clock.advance(SECONDS)
        self.assertEqual(await client.exactly(len(BLANK)), BLANK)
        stream.write(body[9:])
        self.assertEqual(await self.body(client, begun), {"choices": []})

    async def test_bug(self) -> None:
        """A bug of ours is an error like any other."""

        def broken(*args: object, **kwargs: object) -> None:
            raise ZeroDivisionError("a bug")

        for place in ("StreamAggregation", "decoder_for"):
            patched = self.patch(convert, place, broken)
            self.events.clear()
            client, stream, begun = await self.begun()
            respond(stream, 200, HELLO, [EVENTS])
            self.assertEqual((await self.body(client, begun))["error"]["type"], "internal_error")
            self.assertEqual([line.get("status") for line in self.events], [None, 500])
            patched.restore()
            await stream.gone()


class AgainTests(KeepAliveTestCase):
    """Second attempts, once the head is out."""

    async def refused(self, param: str) -> tuple[Stream, Stream, Message]:
        """The second attempt is with the upstream, which refused `param` in the first."""
        client, stream, begun = await self.begun()
        asked = self.asked
        respond(stream, 400, json.dumps({"error": {"param": param}}).encode(), [JSON])
        stream = await asked
        self.clock.advance(SECONDS)
        self.assertEqual(await client.exactly(len(BLANK)), BLANK)
        return client, stream, begun

    async def test_without_usage(self) -> None:
        """The stream of the second attempt is the answer, its errors are the error."""
        for body, status in ((HELLO, 200), (START, 502)):
            self.requests.clear()
            self.events.clear()
            client, stream, begun = await self.refused("stream_options")
            respond(stream, 200, body, [EVENTS])
            answer = await self.body(client, begun)
            self.assertEqual([line["status"] for line in self.events], [status])
            self.assertIn("choices" if status == 200 else "error", answer)
            self.assertEqual(["stream_options" in ask.json() for ask in self.requests], [True, False])

    async def test_without_stream(self) -> None:
        """The unconverted call's answer goes out, whatever it is; it is asked for uncompressed."""
        page = (503, b"<html>", [("Content-Type", "text/html")])
        for status, body, fields in ((200, b'{"passed": true}', [JSON]), (*REFUSED, [JSON]), page):
            self.requests.clear()
            self.events.clear()
            client, stream, begun = await self.refused("stream")
            self.assertEqual(self.requests[-1].json(), CHAT_BODY)
            self.assertEqual(self.requests[-1].all("accept-encoding"), ["identity"])
            respond(stream, status, body, fields)
            answer = await self.body(client, begun)
            if body.startswith(b"{"):
                self.assertEqual(answer, json.loads(body))
            else:
                self.assertIn("status 503", answer["error"]["message"])
            (line,) = self.events
            self.assertEqual((line["status"], line["how"]), (status, "passed"))

    async def test_remembered(self) -> None:
        """A model that is known not to stream is called as it is: in time relayed, later after blanks."""
        port = await self.listening()
        client = await self.client(port)
        asked = self.asked
        send_request(client, "POST", CHAT, CHAT_BODY)
        stream, asked = await asked, self.asked
        respond(stream, 400, b'{"error": {"param": "stream"}}', [JSON])
        respond(await asked, *REFUSED)
        self.assertEqual((await read_response(client)).status, 429)
        asked = self.asked
        send_request(client, "POST", CHAT, CHAT_BODY)
        stream = await asked
        for _ in range(2):
            self.clock.advance(SECONDS)
        begun = await read_head(client)
        self.assertEqual(await client.exactly(len(BLANK)), BLANK)
        respond(stream, 200, HELLO, [EVENTS])
        self.assert_hello(await self.body(client, begun))
        self.assertEqual([line["how"] for line in self.events], ["passed", "converted"])

    async def test_silence(self) -> None:
        """The unconverted call has its own silence, and its own end of patience."""
        client, stream, begun = await self.begun()
        asked = self.asked
        respond(stream, 400, b'{"error": {"param": "stream"}}', [JSON])
        stream = await asked
        self.clock.advance(TIMEOUT)
        self.assertEqual((await self.body(client, begun))["error"]["type"], "upstream_timeout")
        await stream.gone()

    async def test_gone(self) -> None:
        """A client that leaves ends the second attempt."""
        client, stream, _ = await self.refused("stream")
        client.close()
        await stream.gone()
        self.assertEqual(self.clock.getDelayedCalls(), [])
