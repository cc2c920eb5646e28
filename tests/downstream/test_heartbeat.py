"""Converted calls whose clients get a head, and blanks, before there is an answer."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

import openai
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from stream_proxy import Limits, ProxyResource
from stream_proxy.downstream.heartbeat import Heartbeat
from stream_proxy.errors import upstream_timeout
from stream_proxy.flows import convert
from stream_proxy.request_log import RequestLog
from stream_proxy.upstream import client as upstream
from tests.support.loopback import LoopbackTestCase, Upstream, in_thread, turns
from tests.support.payloads import CHAT, CHAT_BODY, HELLO, chunk, event
from tests.support.wire import (
    JSON,
    Message,
    Stream,
    event_stream_head,
    head,
    read_head,
    read_request,
    read_response,
    respond,
    send_request,
)

EVENTS = ("Content-Type", "text/event-stream")
GZIP = ("Content-Encoding", "gzip")
START = chunk({"role": "assistant", "content": "Hel"})
SECONDS = 5
TIMEOUT = 600
BLANK = b"1\r\n \r\n"
REFUSED = (429, b'{"error": {"message": "slow", "type": "t", "param": null, "code": null}}')


class KeepAliveTestCase(LoopbackTestCase):
    """A call that waits, between an upstream and a clock in the hands of the test."""

    upstream_: Upstream
    client_: Stream

    def setUp(self) -> None:
        self.clock = Clock()
        self.requests: list[Message] = []
        self.events: list[dict[str, Any]] = []
        self.answers: list[Heartbeat] = []

        def patient(*args: Any) -> Heartbeat:
            self.answers.append(Heartbeat(*args))
            return self.answers[-1]

        self.patch(convert, "Heartbeat", patient)

    async def listening(self, **limits: Any) -> int:
        """Start an upstream that says nothing by itself, and a proxy."""
        self.asked: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            while True:
                self.requests.append(await read_request(stream))
                asked, self.asked = self.asked, Deferred()
                asked.callback(stream)

        def make(*args: Any, **kwargs: Any) -> ProxyResource:
            resource = ProxyResource(*args, **kwargs)
            resource.clock = self.clock
            return resource

        self.upstream_ = await self.upstream(script)
        log = RequestLog(observer=cast(Any, self.events.append))
        bounds = Limits(**{"keep_alive_seconds": SECONDS, "timeout_seconds": TIMEOUT, **limits})
        return await self.proxy(self.upstream_.url, resource=make, limits=bounds, log=log)

    async def waiting(self, **limits: Any) -> tuple[Stream, Stream]:
        """A client, whose call is with the upstream; and the upstream's end of that."""
        port = await self.listening(**limits)
        asked = self.asked
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY, [("Accept-Encoding", "gzip, br")])
        return client, await asked

    async def begun(self, **limits: Any) -> tuple[Stream, Stream, Message]:
        """The same once the head is out, and one blank."""
        client, stream = await self.waiting(**limits)
        self.clock.advance(SECONDS)
        begun = await read_head(client)
        self.clock.advance(SECONDS)
        self.assertEqual(await client.exactly(len(BLANK)), BLANK)
        return client, stream, begun

    @property
    def silence(self) -> IDelayedCall:
        """The timer of the upstream's silence."""
        return max(self.clock.getDelayedCalls(), key=lambda call: call.getTime())

    async def moved(self, move: Callable[[], None]) -> None:
        """`move` has been noticed."""
        self.clock.advance(1)
        move()
        while self.silence.getTime() < self.clock.seconds() + TIMEOUT:
            await turns(1)

    async def body(self, client: Stream, begun: Message) -> Any:
        """The rest of a chunked answer, which ends as it should, as JSON."""
        message = Message(begun.line, begun.headers, b" ")
        while size := int(await client.until(b"\r\n"), 16):
            message.body += await client.exactly(size)
            await client.exactly(2)
        await client.until(b"\r\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return message.json()

    def assert_hello(self, body: Any) -> None:
        """It is the completion that `HELLO` makes."""
        self.assertEqual(body["choices"][0]["message"]["content"], "Hello")


class BlankTests(KeepAliveTestCase):
    """The head and the blanks."""

    async def test_blanks(self) -> None:
        """A head and a blank after one interval, then one more each time; the answer ends them."""
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
        self.assertEqual(await client.exactly(len(BLANK)), BLANK)
        for _ in range(3):
            self.clock.advance(SECONDS)
            self.assertEqual(await client.exactly(len(BLANK)), BLANK)
        stream.write(event_stream_head() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(HELLO), HELLO))
        body = await self.body(client, begun)
        self.assert_hello(body)
        self.clock.advance(10 * SECONDS)
        await turns()
        self.assertEqual(bytes(client.buffer), b"")
        (line,) = self.events
        self.assertEqual((line["status"], line["how"], line["detail"]), (200, "converted", ""))
        self.assertGreater(line["sent"], 3)

    async def test_connection_goes_on(self) -> None:
        """The client's connection is fit for the next call, which begins anew."""
        client, stream, begun = await self.begun()
        respond(stream, 200, HELLO, [EVENTS])
        self.assert_hello(await self.body(client, begun))
        asked = self.asked
        send_request(client, "POST", CHAT, CHAT_BODY)
        respond(await asked, *REFUSED)
        response = await read_response(client)
        self.assertEqual((response.status, response.get("content-length")), (429, str(len(response.body))))

    async def test_http_1_0(self) -> None:
        """A client of HTTP/1.0 gets the same, ended by the end of its connection."""
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
        """Where the upstream's head has come, its status and fields go out with ours."""
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
        """Blanks go out while the stream moves, too: the client sees nothing of it."""
        client, stream, begun = await self.begun()
        await self.moved(lambda: stream.write(event_stream_head() + b"%x\r\n%b\r\n" % (len(START), START)))
        self.clock.advance(SECONDS)
        self.assertEqual(await client.exactly(len(BLANK)), BLANK)
        rest = HELLO.removeprefix(START)
        stream.chunk(rest)
        self.assert_hello(await self.body(client, begun))

    async def test_slow_reader(self) -> None:
        """A client that does not read gets no blanks until it does."""
        client, stream, begun = await self.begun()
        (answer,) = self.answers
        channel: Any = answer._request.channel
        channel.pauseProducing()
        sent = answer.sent
        self.clock.advance(SECONDS)
        self.clock.advance(SECONDS)
        self.assertEqual(answer.sent, sent)
        channel.resumeProducing()
        self.clock.advance(SECONDS)
        self.assertEqual(answer.sent, sent + 1)
        self.assertEqual(await client.exactly(len(BLANK)), BLANK)
        channel.pauseProducing()
        respond(stream, 200, HELLO, [EVENTS])
        self.assert_hello(await self.body(client, begun))

    async def test_off(self) -> None:
        """Without an interval nothing goes out before the answer."""
        client, stream = await self.waiting(keep_alive_seconds=0)
        self.clock.advance(TIMEOUT - 1)
        await turns()
        self.assertEqual(client.received, 0)
        respond(stream, *REFUSED)
        self.assertEqual((await read_response(client)).status, 429)

    async def test_gone(self) -> None:
        """A client that leaves ends it all."""
        client, stream, _ = await self.begun()
        client.close()
        await stream.gone()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        (line,) = self.events
        self.assertEqual((line["status"], line["sent"]), (499, 2))


class EarlyTests(KeepAliveTestCase):
    """What is known before the first interval is over."""

    async def test_in_time(self) -> None:
        """An answer in time is as it always was, and leaves no timer."""
        for status, body, said in ((*REFUSED, JSON), (200, HELLO, EVENTS), (503, b"<html>", ("X", "y"))):
            client, stream = await self.waiting()
            self.clock.advance(SECONDS - 0.1)
            respond(stream, status, body, [said])
            response = await read_response(client)
            self.assertEqual((response.status, response.all("transfer-encoding")), (status, []))
            self.assertEqual(response.get("content-length"), str(len(response.body)))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_status_in_time(self) -> None:
        """An error status that came in time is the client's status, however long its body takes."""
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
        """One that may yet be followed by another attempt is not, and none of its fields go out."""
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
        """JSON whose beginning was relayed in time gets no blanks inside."""
        client, stream = await self.waiting()
        body = b'{"error": "x"}'
        stream.write(head(200, [JSON, ("Content-Length", str(len(body)))]) + body[:8])
        begun = await read_head(client)
        self.clock.advance(3 * SECONDS)
        stream.write(body[8:])
        self.assertEqual((begun.status, await client.exactly(len(body))), (200, body))


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


class SDKTests(KeepAliveTestCase):
    """The real ``openai`` SDK does not notice."""

    async def test_create(self) -> None:
        """An answer after blanks is an answer."""
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


class PacingTests(KeepAliveTestCase):
    """A read that decodes to very much, while others wait for their turn."""

    async def unpacking(self, data: bytes) -> tuple[Stream, Stream]:
        """The proxy has begun to unpack `data`, and waits for the next turn of the reactor."""
        client, stream = await self.waiting()
        stream.write(event_stream_head([GZIP]))
        stream.chunk(gzip.compress(data))
        while len(self.clock.getDelayedCalls()) < 3:
            await turns(1)
        return client, stream

    async def test_answer(self) -> None:
        """The rest is unpacked in the turns that follow, and the client gets its answer."""
        client, _ = await self.unpacking(b": x\n" * 500_000 + HELLO)
        await turns()
        self.assertEqual(client.received, 0)
        self.clock.advance(0)
        response = await read_response(client)
        self.assert_hello(response.json())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_gone(self) -> None:
        """A client that leaves ends that, too."""
        client, stream = await self.unpacking(b": x\n" * 500_000 + HELLO)
        client.close()
        await stream.gone()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_relayed(self) -> None:
        """An answer that turns out to be none is relayed as it came, with all that has come of it."""
        client, stream = await self.waiting()
        packed = gzip.compress(b"\n" * 3 + b"<html>" + b" " * 5_000_000)
        respond(stream, 200, packed, [("Content-Type", "text/html"), GZIP])
        response = await read_response(client)
        self.assertEqual((response.body, response.complete), (packed, True))
        self.assertEqual(self.clock.getDelayedCalls(), [])
