"""Responses of converted calls: their heads, and streams recognised by their content."""

from __future__ import annotations

import gzip
import zlib

from stream_proxy import Limits
from tests.support.conversion import EVENTS, START, AnswerTestCase, streamed, whole
from tests.support.payloads import CHAT, CHAT_BODY, DONE, HELLO, RESPONSES, chunk, event
from tests.support.wire import (
    JSON,
    Stream,
    event_stream_head,
    head,
    read_request,
    send_request,
)


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
