"""Outcomes of converted calls after the heartbeat has sent the head: cut errors, JSON, second attempts."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from stream_proxy.errors import upstream_timeout
from stream_proxy.flows.conversion import staged_body
from stream_proxy.upstream.asking import Asking
from stream_proxy.upstream.client import Upstream
from tests.support.heartbeats import EVENTS, GZIP, REFUSED, SECONDS, SPACE, START, TIMEOUT, HeartbeatTestCase
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


class Waiting:
    """A request to an upstream that is not answered."""

    active = True
    queued = False

    def cancel(self) -> None:
        """Do nothing."""


class LateTests(HeartbeatTestCase):
    """Responses that arrive after the early head."""

    async def late(
        self,
        act: Callable[[Stream], None] | Callable[[Stream], Awaitable[None]],
        *,
        cut: bool = True,
        **limits: Any,
    ) -> tuple[Any, dict[str, Any]]:
        """Return the body and the log line of a call whose upstream does `act` after the early head.

        :param cut: the response is to be cut off without its last brace.
        """
        self.events.clear()
        client, stream, begun = await self.begun(**limits)
        act(stream)
        self.assertEqual((begun.status, begun.all("connection")), (200, []))
        body = await (self.cut(client) if cut else self.body(client, begun))
        (line,) = self.events
        return body, line

    async def test_errors(self) -> None:
        """An error becomes a body without its end; the log has its status and the status sent."""

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
        """An upstream that cannot be reached causes such an error too."""
        asker: Deferred[Any] = Deferred()

        def ask(*args: Any) -> Asking:
            asker.callback(args[-1])
            return Waiting()

        port = await self.listening()
        self.patch(Upstream, "ask", ask)
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY)
        while not self.clock.getDelayedCalls():
            await turns(1)
        self.clock.advance(SECONDS)
        await read_head(client)
        (await asker).upstream_failed(Failure(upstream_timeout("not reached")))
        body = await self.cut(client)
        self.assertEqual(body["error"]["message"], "not reached")

    async def test_own_words(self) -> None:
        """JSON is relayed in the upstream's words, whatever its coding and type; an error is cut off.

        An error in a 200 is one if the 200 was to be a stream.
        """
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
                    fields = [*said, *coding]
                    act = partial(respond, status=code, body=packed, headers=fields)
                    stream = code == 200 and said == [EVENTS]
                    got, line = await self.late(act, cut=stream or code != 200)
                    self.assertEqual(got["error"]["message"], "slow")
                    if stream:
                        self.assertEqual((line["status"], line["how"]), (502, "converted"))
                        continue
                    self.assertEqual((got, line["status"], line["how"]), (json.loads(body), code, "passed"))
                    detail = "" if code == 200 else ", 200 had been sent"
                    self.assertEqual((line["detail"], line["problem"]), (detail, ""))

    async def test_slow_json(self) -> None:
        """While JSON arrives slowly the client keeps getting spaces; the JSON follows as a whole."""
        client, stream, begun = await self.begun()
        body = b'{"choices":  [' + b" " * 100_000 + b"]}"
        await self.moved(
            lambda: stream.write(head(200, [JSON, ("Content-Length", str(len(body)))]) + body[:9])
        )
        self.clock.advance(SECONDS)
        self.assertEqual(await client.exactly(len(SPACE)), SPACE)
        stream.write(body[9:])
        self.assertEqual(await self.body(client, begun), {"choices": []})

    async def test_bug(self) -> None:
        """A bug in the proxy is an error like any other."""

        def broken(*args: object, **kwargs: object) -> None:
            raise ZeroDivisionError("a bug")

        for place in ("StreamAggregation", "decoder_for"):
            patched = self.patch(staged_body, place, broken)
            self.events.clear()
            client, stream, _ = await self.begun()
            respond(stream, 200, HELLO, [EVENTS])
            self.assertEqual((await self.cut(client))["error"]["type"], "internal_error")
            self.assertEqual([line.get("status") for line in self.events], [None, 500])
            patched.restore()
            await stream.gone()


class SecondAttemptTests(HeartbeatTestCase):
    """Second attempts after the early head."""

    async def refused(self, param: str) -> tuple[Stream, Stream, Message]:
        """Let the upstream refuse `param`, and wait until it has the second attempt."""
        client, stream, begun = await self.begun()
        asked = self.asked
        respond(stream, 400, json.dumps({"error": {"param": param}}).encode(), [JSON])
        stream = await asked
        self.clock.advance(SECONDS)
        self.assertEqual(await client.exactly(len(SPACE)), SPACE)
        return client, stream, begun

    async def test_without_usage(self) -> None:
        """The stream of the second attempt becomes the response; an error in it becomes the error."""
        for body, status in ((HELLO, 200), (START, 502)):
            self.requests.clear()
            self.events.clear()
            client, stream, begun = await self.refused("stream_options")
            respond(stream, 200, body, [EVENTS])
            response = await (self.body(client, begun) if status == 200 else self.cut(client))
            self.assertEqual([line["status"] for line in self.outcomes], [status])
            self.assertIn("choices" if status == 200 else "error", response)
            self.assertEqual(["stream_options" in ask.json() for ask in self.requests], [True, False])

    async def test_without_stream(self) -> None:
        """The response to the unconverted call goes out, whatever it is; it is requested unencoded."""
        page = (503, b"<html>", [("Content-Type", "text/html")])
        for status, body, fields in ((200, b'{"passed": true}', [JSON]), (*REFUSED, [JSON]), page):
            self.requests.clear()
            self.events.clear()
            client, stream, begun = await self.refused("stream")
            self.assertEqual(self.requests[-1].json(), CHAT_BODY)
            self.assertEqual(self.requests[-1].all("accept-encoding"), ["identity"])
            respond(stream, status, body, fields)
            response = await (self.body(client, begun) if status == 200 else self.cut(client))
            if body.startswith(b"{"):
                self.assertEqual(response, json.loads(body))
            else:
                self.assertIn("status 503", response["error"]["message"])
            (line,) = self.outcomes
            self.assertEqual((line["status"], line["how"]), (status, "passed"))

    async def test_remembered(self) -> None:
        """A model known not to stream gets the call as it is; a late response follows the spaces."""
        port = await self.listening()
        client = await self.client(port)
        asked = self.asked
        send_request(client, "POST", CHAT, CHAT_BODY)
        stream, asked = await asked, self.asked
        respond(stream, 400, b'{"error": {"param": "stream"}}', [JSON])
        respond(await asked, 200, b"{}", [JSON])
        self.assertEqual((await read_response(client)).status, 200)
        asked = self.asked
        send_request(client, "POST", CHAT, CHAT_BODY)
        stream = await asked
        for _ in range(2):
            self.clock.advance(SECONDS)
        begun = await read_head(client)
        self.assertEqual(await client.exactly(len(SPACE)), SPACE)
        respond(stream, 200, HELLO, [EVENTS])
        self.assert_hello(await self.body(client, begun))
        self.assertEqual([line["how"] for line in self.outcomes], ["passed", "converted"])

    async def test_silence(self) -> None:
        """The unconverted call has a silence timer of its own, which ends the call."""
        client, stream, _ = await self.begun()
        asked = self.asked
        respond(stream, 400, b'{"error": {"param": "stream"}}', [JSON])
        stream = await asked
        self.clock.advance(TIMEOUT)
        self.assertEqual((await self.cut(client))["error"]["type"], "upstream_timeout")
        await stream.gone()

    async def test_gone(self) -> None:
        """A client that leaves ends the second attempt."""
        client, stream, _ = await self.refused("stream")
        client.close()
        await stream.gone()
        self.assertEqual(self.clock.getDelayedCalls(), [])
