"""Converted calls on their way back: what an answer is taken for, how it is given, and how it fails."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Site

from stream_proxy import Limits, ProxyResource
from stream_proxy.flows import aggregation as gathering
from stream_proxy.flows import convert, inspection
from stream_proxy.request_log import RequestLog
from tests.support.loopback import LoopbackTestCase, reactor, turns
from tests.support.payloads import CHAT, CHAT_BODY, DONE, HELLO, RESPONSES, RESPONSES_BODY, chunk, event
from tests.support.wire import (
    JSON,
    Headers,
    Message,
    Stream,
    event_stream_head,
    head,
    read_request,
    read_response,
    respond,
    send_request,
)

EVENTS = ("Content-Type", "text/event-stream")
START = chunk({"role": "assistant", "content": "Hel"})


class AnswerTestCase(LoopbackTestCase):
    """A proxy in front of an upstream that answers every call in the same way."""

    async def asked(
        self,
        answer: Any,
        *,
        target: str = CHAT,
        body: object = None,
        headers: Headers = (),
        **kwargs: Any,
    ) -> Message:
        """The answer to a call of an upstream that calls ``answer(stream)`` once the request is in."""

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                answer(stream)

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, **kwargs)
        if body is None:
            body = RESPONSES_BODY if target == RESPONSES else CHAT_BODY
        return await self.request(port, target=target, body=body, headers=headers)

    def assert_hello(self, response: Message) -> None:
        """It is the chat completion that `HELLO` makes."""
        self.assertEqual(response.status, 200, response.body)
        self.assertEqual(response.all("content-type"), ["application/json"])
        self.assertEqual(response.json()["choices"][0]["message"]["content"], "Hello")

    def assert_error(self, response: Message, status: int, type: str, words: str = "") -> None:
        """It is an error with OpenAI's envelope."""
        self.assertEqual(response.status, status, response.body)
        error = response.json()["error"]
        self.assertEqual(sorted(error), ["code", "message", "param", "type"])
        self.assertEqual(error["type"], type)
        self.assertIn(words, error["message"])


def whole(data: bytes, headers: Headers = (EVENTS,), status: int = 200) -> Any:
    """Answers with a body and its length."""
    return lambda stream: respond(stream, status, data, headers)


def streamed(data: bytes, headers: Headers = (), *, end: bool = True) -> Any:
    """Answers with a chunked event stream, and its end."""

    def answer(stream: Stream) -> None:
        stream.write(event_stream_head(headers))
        stream.chunk(data)
        if end:
            stream.chunk(b"")

    return answer


class HeadTests(AnswerTestCase):
    """The head of a converted answer."""

    async def test_headers(self) -> None:
        """The upstream's fields survive, but for the connection's and those of the body."""
        fields = [
            ("x-ratelimit-remaining-requests", "7"),
            ("x-request-id", "r1"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("Connection", "x-hop"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=5"),
        ]
        response = await self.asked(streamed(HELLO, fields))
        self.assert_hello(response)
        self.assertEqual(response.get("x-ratelimit-remaining-requests"), "7")
        self.assertEqual(response.get("x-request-id"), "r1")
        self.assertEqual(response.all("set-cookie"), ["a=1", "b=2"])
        self.assertEqual(response.all("content-length"), [str(len(response.body))])
        for name in ("x-hop", "keep-alive", "connection", "transfer-encoding", "content-encoding"):
            self.assertEqual(response.all(name), [], name)

    async def test_responses_byte_for_byte(self) -> None:
        """The Response of the terminal event is the body, as it was spelled."""
        raw = b'{"id": "r",  "output": [1], "n": 1.50}'
        data = (
            b'event: response.completed\ndata: {"type": "response.completed", "response": ' + raw + b"}\n\n"
        )
        response = await self.asked(streamed(data), target=RESPONSES)
        self.assertEqual((response.status, response.body), (200, raw))

    async def test_status(self) -> None:
        """Any status of success is kept, with its reason."""

        def answer(stream: Stream) -> None:
            stream.write(head(201, [EVENTS, ("Content-Length", str(len(HELLO)))], "Made") + HELLO)

        response = await self.asked(answer)
        self.assertEqual(response.line, "HTTP/1.1 201 Made")
        self.assertEqual(response.json()["object"], "chat.completion")


class KindTests(AnswerTestCase):
    """What an answer is taken for."""

    async def test_errors_and_json(self) -> None:
        """An error status, and JSON in place of a stream, are relayed as they are."""
        for status in (200, 201, 400, 401, 429, 500, 503):
            body = b'{ "error":  {"message": "m"} }'
            fields = [("Content-Type", "application/json; charset=utf-8"), ("Retry-After", "3")]
            response = await self.asked(whole(body, fields, status))
            self.assertEqual((response.status, response.body), (status, body))
            self.assertEqual(response.all("content-type"), ["application/json; charset=utf-8"])
            self.assertEqual(response.all("retry-after"), ["3"])

    async def test_other_types(self) -> None:
        """A page of HTML or an empty answer is relayed too."""
        response = await self.asked(whole(b"<html>", [("Content-Type", "text/html")], 200))
        self.assertEqual((response.body, response.get("content-type")), (b"<html>", "text/html"))
        response = await self.asked(lambda stream: stream.write(head(204)))
        self.assertEqual((response.status, response.body), (204, b""))

    async def test_json_under_another_type(self) -> None:
        """JSON that comes as an event stream, or as nothing in particular, goes out as JSON."""
        body = b' \n{"error": {"message": "m"}}'
        for fields in ([EVENTS], [], [("Content-Type", "text/plain")]):
            for status in (200, 429):
                response = await self.asked(whole(body, fields, status))
                self.assertEqual((response.status, response.body), (status, body))
                self.assertEqual(response.all("content-type"), ["application/json"])

    async def test_json_in_pieces(self) -> None:
        """So does JSON behind a BOM and blanks, in whatever pieces it comes, byte for byte."""
        body = b'\xef\xbb\xbf \r\n\t{"error":  {"message": "m"}} '

        def answer(stream: Stream) -> None:
            stream.write(event_stream_head())
            for place in range(len(body)):
                stream.chunk(body[place : place + 1])
            stream.chunk(b"")

        response = await self.asked(answer)
        self.assertEqual((response.status, response.body), (200, body))
        self.assertEqual(response.all("content-type"), ["application/json"])

    async def test_error_that_is_a_stream(self) -> None:
        """An error status is relayed with its type, also if its body is an event stream."""
        for status in (302, 400, 429, 500):
            for fields in ([EVENTS], []):
                response = await self.asked(whole(HELLO, [*fields, ("Location", "/x")], status))
                self.assertEqual((response.status, response.body), (status, HELLO))
                self.assertEqual(response.all("content-type"), [value for _, value in fields])
                self.assertEqual(response.all("location"), ["/x"])

    async def test_neither(self) -> None:
        """A stream by its type alone is an error where it holds no event; without a type it is relayed."""
        for body in (b"", b" \n", b"<html>", b"[1]", b"x" * 200_000):
            self.assert_error(await self.asked(whole(body)), 502, "upstream_error")
            response = await self.asked(whole(body, []))
            self.assertEqual((response.status, response.body, response.all("content-type")), (200, body, []))

    async def test_stream_under_another_type(self) -> None:
        """An event stream is one, whatever it comes as and however it begins."""
        for fields in ([JSON], [], [("Content-Type", "text/plain")]):
            for start in (b"", b"\r\n\n", b"\xef\xbb\xbf", b": hi\n\n", b"event: message\n"):
                self.assert_hello(await self.asked(whole(start + HELLO, fields)))

    async def test_one_byte_at_a_time(self) -> None:
        """It does not matter how the bytes are cut."""

        def answer(stream: Stream) -> None:
            stream.write(head(200, [("Transfer-Encoding", "chunked")]))
            for place in range(len(HELLO)):
                stream.chunk(HELLO[place : place + 1])
            stream.chunk(b"")

        self.assert_hello(await self.asked(answer))


class CodingTests(AnswerTestCase):
    """A stream that is compressed although identity was asked for."""

    async def test_known(self) -> None:
        """gzip and deflate are decoded, both forms of the latter."""
        raw = zlib.compressobj(wbits=-15)
        for coding, data in (
            ("gzip", gzip.compress(HELLO)),
            ("identity, X-GZip", gzip.compress(HELLO[:99]) + gzip.compress(HELLO[99:])),
            ("deflate", zlib.compress(HELLO)),
            ("deflate", raw.compress(HELLO) + raw.flush()),
        ):
            response = await self.asked(whole(data, [EVENTS, ("Content-Encoding", coding)]))
            self.assert_hello(response)
            self.assertEqual(response.all("content-encoding"), [])

    async def test_unknown(self) -> None:
        """Any other coding is a 502 that names it."""
        response = await self.asked(whole(b"...", [EVENTS, ("Content-Encoding", "br")]))
        self.assert_error(response, 502, "upstream_error", "br")

    async def test_no_stream(self) -> None:
        """An answer that is relayed stays compressed, also where only decoding it showed what it is."""
        body = gzip.compress(b'{"error": {"message": "m"}}')
        coded = ("Content-Encoding", "gzip")
        for status in (200, 400, 401):
            for said in ([JSON], [EVENTS], []):
                response = await self.asked(whole(body, [*said, coded], status))
                self.assertEqual((response.status, response.body), (status, body))
                self.assertEqual(response.all("content-encoding"), ["gzip"])
                self.assertEqual(response.all("content-type"), ["application/json"])
        for status, kind in ((200, JSON), (400, JSON), (400, EVENTS)):
            response = await self.asked(whole(b"...", [kind, ("Content-Encoding", "br")], status))
            self.assertEqual((response.status, response.body), (status, b"..."))
            self.assertEqual(response.all("content-encoding"), ["br"])

    async def test_broken(self) -> None:
        """What cannot be decoded, or ends too early, is a 502."""
        fields = [EVENTS, ("Content-Encoding", "gzip")]
        packed = gzip.compress(START * 50)
        for data in (b"no gzip", packed[: len(packed) // 2]):
            self.assert_error(await self.asked(whole(data, fields)), 502, "upstream_error")

    async def test_nothing_inside(self) -> None:
        """A compressed body that decodes to nothing is judged by its type when enough of it has come."""
        pack = zlib.compressobj(wbits=31)
        empty = pack.compress(b"") + b"".join(pack.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
        block = zlib.compressobj(wbits=-15).flush(zlib.Z_FULL_FLUSH) or b"\x00\x00\x00\xff\xff"
        data = empty + block * (300_000 // len(block))
        fields = [("Content-Type", "text/plain"), ("Content-Encoding", "gzip")]

        def endless(stream: Stream) -> None:
            stream.write(head(200, [*fields, ("Transfer-Encoding", "chunked")]))
            stream.chunk(data)

        async def script(stream: Stream) -> None:
            await read_request(stream)
            endless(stream)

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        send_request(client, "POST", CHAT, CHAT_BODY)
        self.assertIn(b"text/plain", await client.until(b"\r\n\r\n"))

    async def test_bomb(self) -> None:
        """What is decoded counts against the bound, and not what came."""
        data = gzip.compress(START + chunk({"content": "x" * 3_000_000}))
        response = await self.asked(
            whole(data, [EVENTS, ("Content-Encoding", "gzip")]), limits=Limits(max_response_bytes=1_000_000)
        )
        self.assert_error(response, 502, "upstream_error", "maxResponseBytes")
        self.assertEqual(response.all("x-should-retry"), ["false"])

    async def test_bomb_of_nothing(self) -> None:
        """What the answer does not need counts too, in both APIs; what is not compressed never does."""
        limits = Limits(max_decoded_bytes=200_000)
        fields = [EVENTS, ("Content-Encoding", "gzip")]
        for filler in (b": x\n", b"\n", event({"type": "response.in_progress", "choices": []})):
            data = filler * (200_000 // len(filler) + 1)
            for target in (CHAT, RESPONSES):
                response = await self.asked(whole(gzip.compress(data), fields), target=target, limits=limits)
                self.assert_error(response, 502, "upstream_error", "200000 bytes that maxDecodedBytes")
                self.assertEqual(response.all("x-should-retry"), ["false"])
        self.assert_hello(await self.asked(whole(b": x\n" * 60_000 + HELLO), limits=limits))

    async def test_much_in_little(self) -> None:
        """A stream that is compressed very well, or has junk behind its end, is none the worse for it."""
        data = b": x\n" * 100_000 + START + b"\n" * 500_000 + HELLO.removeprefix(START)
        fields = [EVENTS, ("Content-Encoding", "gzip")]
        for end in (b"", b"junk"):
            for packed in (gzip.compress(data), gzip.compress(data.removesuffix(DONE))):
                self.assert_hello(await self.asked(whole(packed + end, fields)))


class EndTests(AnswerTestCase):
    """Where a stream ends."""

    async def test_terminal_event(self) -> None:
        """The client is answered at the terminal event, although the upstream goes on."""
        self.assert_hello(await self.asked(streamed(HELLO, end=False)))

    async def test_connection_is_reused(self) -> None:
        """An upstream that ends its body soon after keeps its connection."""
        streams: list[Stream] = []
        answered: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            streams.append(stream)
            await read_request(stream)
            streamed(HELLO, end=False)(stream)
            await answered
            stream.chunk(b"")
            await read_request(stream)
            streamed(HELLO)(stream)

        upstream = await self.upstream(script)
        resources: list[ProxyResource] = []

        def make(*args: Any, **kwargs: Any) -> ProxyResource:
            resources.append(ProxyResource(*args, **kwargs))
            return resources[0]

        port = await self.proxy(upstream.url, resource=make)
        self.assert_hello(await self.request(port, body=CHAT_BODY))
        answered.callback(None)
        while not resources[0].upstream._connections.pool._connections:
            await turns(1)
        self.assert_hello(await self.request(port, body=CHAT_BODY))
        self.assertEqual(len(streams), 1)

    async def test_clean_end_without_done(self) -> None:
        """A finished chat needs no ``[DONE]``, with any framing."""
        data = HELLO.removesuffix(DONE)
        self.assert_hello(await self.asked(streamed(data)))
        self.assert_hello(await self.asked(whole(data)))

        def until_close(stream: Stream) -> None:
            stream.write(head(200, [EVENTS]) + data)
            stream.close()

        self.assert_hello(await self.asked(until_close))

    async def test_clean_end_too_early(self) -> None:
        """Without a finish_reason on every choice, or without all the choices, it is a 502."""
        self.assert_error(await self.asked(streamed(START)), 502, "upstream_error")
        finished = streamed(HELLO.removesuffix(DONE))
        response = await self.asked(finished, body={**CHAT_BODY, "n": 2})
        self.assert_error(response, 502, "upstream_error")
        second = chunk({}, choices=[{"index": 1, "delta": {"content": "two"}, "finish_reason": "stop"}])
        data = HELLO.removesuffix(DONE) + second
        response = await self.asked(streamed(data), body={**CHAT_BODY, "n": 2})
        self.assertEqual(
            [choice["message"]["content"] for choice in response.json()["choices"]], ["Hello", "two"]
        )

    async def test_bare_error_at_the_end(self) -> None:
        """A JSON error behind the events is the error, in both APIs."""
        created = event({"type": "response.created", "response": {}}, "response.created")
        error = b'{"error": {"message": "boom", "type": "server_error", "code": 503}}'
        response = await self.asked(streamed(created + error), target=RESPONSES)
        self.assertEqual(response.status, 503)
        self.assertEqual(response.json()["error"]["message"], "boom")
        data = START + b'{"error": {"message": "boom", "type": "server_error", "code": 503}}'
        self.assert_error(await self.asked(streamed(data)), 503, "server_error", "boom")

    async def test_broken(self) -> None:
        """An upstream that breaks off is a 502, wherever it does; after ``[DONE]`` it is an answer."""

        def broken(data: bytes) -> Any:
            def answer(stream: Stream) -> None:
                stream.write(data)
                stream.close()

            return answer

        begin = event_stream_head()
        framed = b"%x\r\n%b\r\n" % (len(START), START)
        for data in (
            b"",
            b"HTTP/1.1 200 OK\r\n",
            begin,
            begin + framed + b"20\r\ndata: {",
            begin + framed + b"2",
            begin + framed,
        ):
            self.assert_error(await self.asked(broken(data)), 502, "upstream_error")
        whole_stream = b"%x\r\n%b\r\n" % (len(HELLO), HELLO)
        self.assert_hello(await self.asked(broken(begin + whole_stream)))
        finished = HELLO.removesuffix(DONE)
        response = await self.asked(broken(begin + b"%x\r\n%b\r\n" % (len(finished), finished)))
        self.assert_error(response, 502, "upstream_error")

    async def test_broken_on_accept(self) -> None:
        """An upstream that closes before it is asked is a 502."""

        async def script(stream: Stream) -> None:
            stream.close()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        self.assert_error(await self.request(port, body=CHAT_BODY), 502, "upstream_error")


class ErrorTests(AnswerTestCase):
    """Errors inside a stream, and of the proxy's own."""

    async def test_chat_errors(self) -> None:
        """The status is that of the code, else of the codes it may name, else of the type, else 502."""
        for error, status in (
            ({"message": "m", "code": 418}, 418),
            ({"message": "m", "code": "429"}, 429),
            ({"message": "m", "status": 503}, 503),
            ({"message": "m", "code": "insufficient_quota"}, 429),
            ({"message": "m", "type": "authentication_error"}, 401),
            ({"message": "m", "type": "overloaded_error"}, 503),
            ({"message": "m", "code": 200}, 502),
            ("m", 502),
        ):
            response = await self.asked(streamed(START + event({"error": error}), [("x-request-id", "r")]))
            self.assertEqual(response.status, status, error)
            self.assertEqual(response.json()["error"]["message"], "m")
            self.assertEqual(response.get("x-request-id"), "r")

    async def test_response_errors(self) -> None:
        """An ``error`` event is a 502 unless its code says more; a failed Response goes by its code."""
        for data, status in (
            (event({"type": "error", "message": "m"}, "error"), 502),
            (event({"type": "error", "message": "m", "code": "rate_limit_exceeded"}, "error"), 429),
            (
                event(
                    {"type": "response.failed", "response": {"error": {"code": "slow_down", "message": "m"}}}
                ),
                503,
            ),
            (event({"type": "response.failed", "response": {"error": None}}), 200),
        ):
            response = await self.asked(streamed(data), target=RESPONSES)
            self.assertEqual(response.status, status, data)

    async def test_no_json(self) -> None:
        """Data that is not JSON is a 502."""
        self.assert_error(await self.asked(streamed(START + event("{oops"))), 502, "upstream_error")

    async def test_too_large(self) -> None:
        """An answer beyond the bound is a 502 that should not be tried again; one of its size is none."""
        size = len((await self.asked(streamed(HELLO))).body)
        response = await self.asked(streamed(HELLO), limits=Limits(max_response_bytes=size))
        self.assert_hello(response)
        response = await self.asked(streamed(HELLO), limits=Limits(max_response_bytes=size - 1))
        self.assert_error(response, 502, "upstream_error", "maxResponseBytes")
        self.assertEqual(response.all("x-should-retry"), ["false"])

    async def test_response_too_large(self) -> None:
        """The bound holds for a Response, and for one event that does not end."""
        raw = b'{"id":"r","output":[1]}'
        data = b'data: {"type": "response.completed", "response": ' + raw + b"}\n\n"
        for size, status in ((len(raw), 200), (len(raw) - 1, 502)):
            response = await self.asked(
                streamed(data), target=RESPONSES, limits=Limits(max_response_bytes=size)
            )
            self.assertEqual(response.status, status)
        for target in (CHAT, RESPONSES):
            response = await self.asked(
                streamed(b"data: " + b"x" * 200_000, end=False),
                target=target,
                limits=Limits(max_response_bytes=1000),
            )
            self.assert_error(response, 502, "upstream_error", "maxResponseBytes")
            self.assertEqual(response.all("x-should-retry"), ["false"])

    async def test_request_too_large(self) -> None:
        """A body of the bound's size is taken; one more byte is a 413, streaming or not."""
        body = json.dumps(CHAT_BODY).encode()
        limits = Limits(max_request_bytes=len(body))
        self.assert_hello(await self.asked(streamed(HELLO), body=body, headers=[JSON], limits=limits))
        for more in (body + b" ", json.dumps({**CHAT_BODY, "stream": True}).encode()):
            response = await self.asked(streamed(HELLO), body=more, headers=[JSON], limits=limits)
            self.assert_error(response, 413, "invalid_request_error", "maxRequestBytes")

    async def test_silence(self) -> None:
        """Silence is a 504, before the head and inside the stream."""
        limits = Limits(timeout_seconds=0.1)
        for answer in (lambda stream: None, streamed(START, end=False)):
            self.assert_error(await self.asked(answer, limits=limits), 504, "upstream_timeout")

    async def test_bug(self) -> None:
        """A bug of ours is a 500 with the envelope, and in the log."""

        def broken(*args: object, **kwargs: object) -> None:
            raise ZeroDivisionError("a bug")

        for module, name in (
            (convert, "decoder_for"),
            (inspection, "sniff"),
            (gathering, "SSEDecoder"),
            (gathering, "ChatCompletionsAccumulator"),
        ):
            patched = self.patch(module, name, broken)
            logged: list[dict[str, Any]] = []
            log = RequestLog(observer=logged.append)  # type: ignore[arg-type]
            response = await self.asked(streamed(HELLO, end=False), log=log)
            patched.restore()
            self.assert_error(response, 500, "internal_error")
            self.assertNotIn(b"ZeroDivision", response.body)
            self.assertEqual([entry.get("status") for entry in logged], [None, 500], name)
            self.assertIsInstance(logged[0]["log_failure"].value, ZeroDivisionError)


class ClientTests(AnswerTestCase):
    """The client's side of a conversion."""

    async def test_gone(self) -> None:
        """A client that leaves ends the upstream's request, before the head and inside the stream."""
        for begun in (False, True):
            asked: Deferred[Stream] = Deferred()

            async def script(stream: Stream, begun: bool = begun, asked: Deferred[Stream] = asked) -> None:
                await read_request(stream)
                if begun:
                    streamed(START, end=False)(stream)
                asked.callback(stream)

            upstream = await self.upstream(script)
            port = await self.proxy(upstream.url)
            client = await self.client(port)
            send_request(client, "POST", CHAT, CHAT_BODY)
            stream = await asked
            client.close()
            await stream.gone()

    async def test_pipelined(self) -> None:
        """Two calls sent at once on one connection are answered in order."""

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                streamed(HELLO)(stream)

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        send_request(client, "POST", CHAT, CHAT_BODY)
        send_request(client, "POST", CHAT, CHAT_BODY)
        for _ in range(2):
            self.assert_hello(await read_response(client))

    async def test_http_1_0(self) -> None:
        """A client of HTTP/1.0 gets its answer and the end of the connection."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            streamed(HELLO)(stream)

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        body = json.dumps(CHAT_BODY).encode()
        lines = (
            f"POST {CHAT} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        client.write(lines.encode() + body)
        self.assert_hello(await read_response(client))
        self.assertEqual(await client.rest(), b"")


class PlaceTests(AnswerTestCase):
    """Where the resource can be put."""

    async def test_plain_site_below_a_path(self) -> None:
        """In Twisted's own site, below a child: the child's path does not go upstream, and bodies arrive."""
        targets: list[tuple[str, bytes]] = []

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                targets.append((request.target, request.body))
                if request.target.startswith(CHAT):
                    streamed(HELLO)(stream)
                else:
                    respond(stream, 200, b"ok")

        upstream = await self.upstream(script)
        proxy = ProxyResource(upstream.url, reactor=reactor, log=RequestLog(observer=lambda _: None))  # type: ignore[arg-type]
        root = Resource()
        root.putChild(b"ai", proxy)
        self.addCleanup(proxy.close)
        port = await self.listen(Site(root))
        self.assert_hello(await self.request(port, target=f"/ai{CHAT}?a=%2F", body=CHAT_BODY))
        self.assertEqual(targets[0][0], CHAT + "?a=%2F")
        for target, upstream_target in (("/ai", "/"), ("/ai?a=/b", "/?a=/b"), ("/ai//x", "//x")):
            await self.request(port, "GET", target)
            self.assertEqual(targets.pop(), (upstream_target, b""))
        blob = bytes(range(256)) * 1000
        response = await self.request(port, target="/ai/v1/files", body=blob)
        self.assertEqual((response.body, targets[1]), (b"ok", ("/v1/files", blob)))


class LogTests(AnswerTestCase):
    """The line that each request leaves."""

    async def test_lines(self) -> None:
        """One line a request, with what is worth knowing and nothing that is secret."""
        events: list[dict[str, Any]] = []
        log = RequestLog(observer=events.append)  # type: ignore[arg-type]
        secret = [("Authorization", "Bearer sk-secret"), ("X-Other", "sk-secret")]
        target = CHAT + "?key=sk-secret"
        await self.asked(streamed(HELLO), target=target, headers=secret, log=log)
        await self.asked(whole(b"{}", [JSON], 401), target=target, headers=secret, log=log)
        await self.asked(streamed(START), target=target, headers=secret, log=log)
        self.assertEqual([entry["status"] for entry in events], [200, 401, 502])
        self.assertEqual([entry["how"] for entry in events], ["converted", "passed", "converted"])
        self.assertTrue(all(entry["path"] == CHAT and entry["method"] == "POST" for entry in events))
        self.assertIn("ended", events[2]["problem"])
        self.assertNotIn("sk-secret", repr(events))

    async def test_words_of_the_upstream(self) -> None:
        """What an upstream says in an error goes to the client alone: it may quote keys, or forge lines."""
        events: list[dict[str, Any]] = []
        log = RequestLog(observer=events.append)  # type: ignore[arg-type]
        answer = streamed(START + event({"error": {"message": "Incorrect API key: sk-secret", "code": 401}}))
        response = await self.asked(answer, log=log)
        self.assertIn("sk-secret", response.json()["error"]["message"])
        self.assertEqual(len(events), 1)
        self.assertIn("reported an error", events[0]["problem"])
        self.assertNotIn("sk-secret", repr(events))

    async def test_absolute_target(self) -> None:
        """Of a target in absolute form the path alone is told."""
        events: list[dict[str, Any]] = []
        log = RequestLog(observer=events.append)  # type: ignore[arg-type]
        await self.asked(streamed(HELLO), target=f"http://user:sk-secret@h{CHAT}", log=log)
        self.assertEqual([entry["path"] for entry in events], [CHAT])
        self.assertNotIn("sk-secret", repr(events))
