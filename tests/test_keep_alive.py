"""``keepAliveSeconds``: blanks for whoever waits, and what can still be said after them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy import Limits, ProxyResource
from stream_proxy.keepalive import KeepAlive
from stream_proxy.outcome import RequestLog
from tests.support import (
    CHAT,
    CHAT_BODY,
    HELLO,
    JSON,
    LoopbackTestCase,
    Message,
    Stream,
    chunk,
    event_stream_head,
    head,
    read_body,
    read_head,
    read_request,
    read_response,
    respond,
    send_request,
    turns,
)

LIMITS = Limits(keep_alive_seconds=5, timeout_seconds=60)
TOO_MANY = b'{"error": {"message": "slow down", "code": 7}}'


class KeepAliveTestCase(LoopbackTestCase):
    """A client that waits for an upstream whose steps the test takes."""

    async def wait(self, limits: Limits = LIMITS, version: str = "1.1") -> None:
        """Send a call, and have it arrive upstream."""
        self.asked: Deferred[tuple[Message, Stream]] = Deferred()

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                asked, self.asked = self.asked, Deferred()
                asked.callback((request, stream))

        resources: list[ProxyResource] = []

        def resource(url: str, **kwargs: Any) -> ProxyResource:
            resources.append(ProxyResource(url, limits=limits, **kwargs))
            resources[0].clock = self.clock = Clock()
            return resources[0]

        self.logged: list[dict[str, Any]] = []
        log = RequestLog(observer=cast(Any, self.logged.append))
        self.proxied = await self.upstream(script)
        port = await self.proxy(self.proxied.url, resource=resource, log=log)
        self.waiting = await self.client(port)
        asked = self.asked
        if version == "1.0":
            body = json.dumps(CHAT_BODY)
            fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
            self.waiting.write(f"POST {CHAT} HTTP/1.0\r\n{fields}\r\n\r\n{body}".encode())
        else:
            send_request(self.waiting, "POST", CHAT, CHAT_BODY)
        self.request_seen, self.server = await asked

    async def again(self, step: Callable[[], object]) -> None:
        """Take a step after which the upstream is asked once more."""
        asked = self.asked
        step()
        self.request_seen, self.server = await asked

    async def begin(self) -> Message:
        """Let so much time pass that the answer begins."""
        self.clock.advance(4.9)
        await turns()
        self.assertEqual(self.waiting.received, 0)
        self.clock.advance(0.2)
        answer = await read_head(self.waiting)
        self.assertEqual((answer.status, answer.get("content-type")), (200, "application/json"))
        return answer

    async def finish(self, answer: Message) -> Any:
        """The rest of an answer, which is JSON, and the whole of it."""
        await read_body(self.waiting, answer, closes=True)
        self.assertTrue(answer.complete)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return answer.json()

    def stream(self, data: bytes = HELLO) -> None:
        """The upstream answers with a stream."""
        self.server.write(event_stream_head([("x-request-id", "r1")]))
        self.server.chunk(data)
        self.server.chunk(b"")

    async def assert_error(self, answer: Message, kind: str, status: int, message: str = ".") -> None:
        """The answer that has begun ends with an error, which the log tells with its own status."""
        error = (await self.finish(answer))["error"]
        self.assertEqual((error["type"], error["param"], error["code"]), (kind, None, kind))
        self.assertRegex(error["message"], message)
        self.assert_logged(status)

    def assert_logged(self, status: int) -> None:
        """So the log tells how it ended."""
        (entry,) = self.logged
        self.assertEqual((entry["status"], entry["detail"]), (status, ", after status 200"))


class WaitTests(KeepAliveTestCase):
    """What a client sees while it waits, and then."""

    async def test_answer(self) -> None:
        """After some seconds the head and a blank, then one more each time; then the answer."""
        await self.wait()
        answer = await self.begin()
        self.assertEqual(answer.get("transfer-encoding"), "chunked")
        self.assertEqual(await self.waiting.exactly(6), b"1\r\n \r\n")
        for _ in range(3):
            self.clock.advance(5)
            self.assertEqual(await self.waiting.exactly(6), b"1\r\n \r\n")
        self.stream()
        result = await self.finish(answer)
        self.assertEqual(result["choices"][0]["message"]["content"], "Hello")
        (entry,) = self.logged
        self.assertEqual((entry["status"], entry["detail"], entry["sent"]), (200, "", len(answer.body) + 4))

    async def test_kept_connection(self) -> None:
        """The next call on the connection is answered as well."""
        await self.wait()
        answer = await self.begin()
        self.stream()
        await self.finish(answer)

        def ask() -> None:
            send_request(self.waiting, "POST", CHAT, CHAT_BODY)

        await self.again(ask)
        self.stream()
        self.assertEqual((await read_response(self.waiting)).get("x-request-id"), "r1")

    async def test_old_client(self) -> None:
        """HTTP/1.0 knows no chunks: the connection's end is the answer's."""
        await self.wait(version="1.0")
        answer = await self.begin()
        self.assertIsNone(answer.get("transfer-encoding"))
        self.clock.advance(5)
        self.stream()
        result = await self.finish(answer)
        self.assertTrue(answer.body.startswith(b"  {"))
        self.assertEqual(result["object"], "chat.completion")

    async def test_headers(self) -> None:
        """The upstream's fields go with the head if they are there by then."""
        await self.wait()
        self.server.write(head(201, [("Content-Type", "text/event-stream"), ("x-request-id", "r1")]))
        self.server.write(chunk({"content": "Hel"}))
        await turns()
        self.clock.advance(5)
        answer = await read_head(self.waiting)
        self.assertEqual((answer.status, answer.all("x-request-id")), (201, ["r1"]))
        self.assertEqual(answer.all("content-type"), ["application/json"])
        self.server.write(chunk({"content": "lo"}, "stop"))
        self.server.close()
        self.assertEqual((await self.finish(answer))["choices"][0]["message"]["content"], "Hello")

    async def test_soon(self) -> None:
        """An answer within the time is what it always is: its status, its fields, its length."""
        for data, status in ((None, 200), (TOO_MANY, 429)):
            await self.wait()
            self.clock.advance(4.9)
            if data is None:
                self.stream()
            else:
                respond(self.server, 429, data, [JSON, ("Retry-After", "7")])
            answer = await read_response(self.waiting)
            self.assertEqual((answer.status, answer.get("transfer-encoding")), (status, None))
            self.assertEqual(answer.get("retry-after"), "7" if data else None)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_off(self) -> None:
        """Without the setting there is no head before the answer."""
        await self.wait(Limits(timeout_seconds=60))
        self.clock.advance(59)
        await turns()
        self.assertEqual(self.waiting.received, 0)
        self.stream()
        await read_response(self.waiting)

    async def test_gone(self) -> None:
        """A client that leaves meanwhile ends the call upstream, and the blanks."""
        await self.wait()
        await self.begin()
        self.waiting.close()
        await self.server.gone()
        await turns()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.logged[0]["status"], 499)


class ErrorTests(KeepAliveTestCase):
    """What goes wrong after the head is in the body."""

    async def after(self, step: Callable[[Stream], object]) -> Message:
        """A call whose answer has begun when the upstream takes this step."""
        await self.wait()
        answer = await self.begin()
        step(self.server)
        return answer

    async def test_status(self) -> None:
        """An upstream's error, as it came."""
        for coding, body in ((None, TOO_MANY), ("gzip", gzip.compress(TOO_MANY))):
            fields = [JSON, ("Content-Encoding", coding)] if coding else [JSON]

            def refuse(stream: Stream, fields: Any = fields, body: bytes = body) -> None:
                respond(stream, 429, body, fields)

            answer = await self.after(refuse)
            self.assertEqual(await self.finish(answer), json.loads(TOO_MANY))
            self.assert_logged(429)

    async def test_no_json(self) -> None:
        """What is no JSON cannot follow; it is told."""
        for status, logged in ((503, 503), (200, 502)):

            def refuse(stream: Stream, status: int = status) -> None:
                respond(stream, status, b"<html>" + b"x" * 100_000, [("Content-Type", "text/html")])

            answer = await self.after(refuse)
            await self.assert_error(answer, "upstream_error", logged, f"status {status} and something")

    async def test_broken(self) -> None:
        """Streams and JSON that end too early, or cannot be read."""
        for data, words in (
            (b"", "closed the connection before it answered"),
            (event_stream_head() + b"5\r\ndata:", "broke|ended"),
            (event_stream_head() + b"9\r\ndata: x\n\n\r\n0\r\n\r\n", "no usable JSON"),
            (head(200, [JSON, ("Content-Length", "50")]) + b'{"a": 1', "broke before"),
            (head(200, [JSON, ("Content-Encoding", "br"), ("Content-Length", "5")]) + b"12345", "not JSON"),
        ):

            def breaks(stream: Stream, data: bytes = data) -> None:
                stream.write(data)
                stream.close()

            await self.assert_error(await self.after(breaks), "upstream_error", 502, words)

    async def test_large(self) -> None:
        """An answer that is larger than may be held."""
        await self.wait(Limits(keep_alive_seconds=5, max_response_bytes=100))
        answer = await self.begin()
        respond(self.server, 200, b'{"a": "%b"}' % (b"x" * 200), [JSON])
        await self.assert_error(answer, "upstream_error", 502, "maxResponseBytes")

    async def test_silence(self) -> None:
        """Blanks for the client are no sign of life of the upstream."""
        await self.wait()
        answer = await self.begin()
        for _ in range(11):
            self.clock.advance(5)
        await self.assert_error(answer, "upstream_timeout", 504, "sent nothing for 60 seconds")


class AgainTests(KeepAliveTestCase):
    """Second attempts after the head."""

    def refuse(self, word: str) -> Callable[[], None]:
        """The upstream does not take that parameter."""
        return lambda: respond(self.server, 400, json.dumps({"error": {"param": word}}).encode(), [JSON])

    async def test_usage(self) -> None:
        """Without `stream_options`; the answer is what it would have been."""
        await self.wait()
        answer = await self.begin()
        await self.again(self.refuse("stream_options"))
        self.assertNotIn("stream_options", self.request_seen.json())
        self.clock.advance(5)
        self.stream()
        self.assertEqual((await self.finish(answer))["choices"][0]["message"]["content"], "Hello")

    async def test_unconverted(self) -> None:
        """The client's own call, in the middle of which the blanks go on; before the head and after it."""
        for begun in (False, True):
            await self.wait()
            answer = await self.begin() if begun else None
            await self.again(self.refuse("stream"))
            self.assertEqual(self.request_seen.json(), CHAT_BODY)
            if answer is None:
                answer = await self.begin()
            await self.waiting.exactly(6)
            self.clock.advance(5)
            self.assertEqual(await self.waiting.exactly(6), b"1\r\n \r\n")
            respond(self.server, 200, b'{"whole": 1}', [JSON])
            self.assertEqual(await self.finish(answer), {"whole": 1})
            self.assertEqual((self.logged[0]["status"], self.logged[0]["how"]), (200, "passed"))


class _Request:
    """What `KeepAlive` needs of a request."""

    channel = None

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.responseHeaders = self
        self.producer: Any = None

    def getRawHeaders(self, name: bytes) -> None:
        """None."""

    def setResponseCode(self, status: int, reason: object) -> None:
        """Nothing to see."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Remember it."""
        self.producer = producer

    def write(self, data: bytes) -> None:
        """Remember it."""
        self.written.append(data)


class PauseTests(SynchronousTestCase):
    """A client that does not read."""

    def test_paused(self) -> None:
        """It gets no more until it does."""
        clock, request = Clock(), _Request()
        waiting = KeepAlive(clock, cast(Any, request), 5, lambda: (200, ()))
        clock.pump([5] * 2)
        request.producer.pauseProducing()
        clock.pump([5] * 100)
        self.assertEqual(request.written, [b" "] * 2)
        request.producer.resumeProducing()
        clock.pump([5])
        self.assertEqual(request.written, [b" "] * 3)
        waiting.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
