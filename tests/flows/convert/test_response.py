"""Responses of converted calls: their heads, and streams recognized by their content."""

from __future__ import annotations

import gzip
import zlib

from stream_proxy import Limits
from tests.support.conversion import EVENTS, START, ConversionTestCase, streamed, whole
from tests.support.payloads import CHAT, CHAT_BODY, DONE, HELLO, RESPONSES, chunk, event
from tests.support.wire import JSON, Stream, event_stream_head, head, read_request, send_request


class HeadTests(ConversionTestCase):
    """Heads of converted responses."""

    async def test_headers(self) -> None:
        """The upstream's fields are relayed, except hop-by-hop ones and those that describe the body."""
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
        """The Response in the terminal event becomes the body, byte for byte."""
        raw = b'{"id": "r",  "output": [1], "n": 1.50}'
        data = (
            b'event: response.completed\ndata: {"type": "response.completed", "response": ' + raw + b"}\n\n"
        )
        response = await self.asked(streamed(data), target=RESPONSES)
        self.assertEqual((response.status, response.body), (200, raw))

    async def test_status(self) -> None:
        """Any 2xx status is kept, with its reason phrase."""

        def responder(stream: Stream) -> None:
            stream.write(head(201, [EVENTS, ("Content-Length", str(len(HELLO)))], "Made") + HELLO)

        response = await self.asked(responder)
        self.assertEqual(response.line, "HTTP/1.1 201 Made")
        self.assertEqual(response.json()["object"], "chat.completion")


class KindTests(ConversionTestCase):
    """Recognition of streams, JSON and other bodies."""

    async def test_errors_and_json(self) -> None:
        """Error statuses, and JSON in place of a stream, are relayed unchanged."""
        for status in (200, 201, 400, 401, 429, 500, 503):
            body = b'{ "error":  {"message": "m"} }'
            fields = [("Content-Type", "application/json; charset=utf-8"), ("Retry-After", "3")]
            response = await self.asked(whole(body, fields, status))
            self.assertEqual((response.status, response.body), (status, body))
            self.assertEqual(response.all("content-type"), ["application/json; charset=utf-8"])
            self.assertEqual(response.all("retry-after"), ["3"])

    async def test_other_types(self) -> None:
        """HTML pages and empty responses are relayed too."""
        response = await self.asked(whole(b"<html>", [("Content-Type", "text/html")], 200))
        self.assertEqual((response.body, response.get("content-type")), (b"<html>", "text/html"))
        response = await self.asked(lambda stream: stream.write(head(204)))
        self.assertEqual((response.status, response.body), (204, b""))

    async def test_json_under_another_type(self) -> None:
        """JSON labelled as an event stream, or not labelled at all, goes out as JSON."""
        body = b' \n{"object": "chat.completion"}'
        for fields in ([EVENTS], [], [("Content-Type", "text/plain")]):
            for status in (200, 429):
                response = await self.asked(whole(body, fields, status))
                self.assertEqual((response.status, response.body), (status, body))
                self.assertEqual(response.all("content-type"), ["application/json"])

    async def test_bare_error_as_a_stream(self) -> None:
        """A JSON error that a server wrote under 200 and the type of a stream is an error, in any framing."""
        error = b'{"error": {"message": "m", "code": 400, "n_ctx": 16}}'
        for body in (error, b"\n" + error + b"\n\ndata: [DONE]\n\n", b"[" + error + b"]", b"error: " + error):
            response = await self.asked(whole(body))
            self.assertEqual((response.status, response.json()["error"]["n_ctx"]), (400, 16))
        for body in (error, gzip.compress(error)):
            coded = [("Content-Encoding", "gzip")] if body != error else []
            response = await self.asked(whole(body, [EVENTS, *coded]), target=RESPONSES)
            self.assertEqual(response.status, 400)
        response = await self.asked(whole(error, [JSON]))
        self.assertEqual((response.status, response.body), (200, error))
        long = b'{"object": "chat.completion", "x": "%b"}' % (b"x" * 100_000)
        self.assertEqual((await self.asked(whole(long))).body, long)

    async def test_json_in_pieces(self) -> None:
        """JSON after a BOM and whitespace is recognized however it is cut, and relayed byte for byte."""
        body = b'\xef\xbb\xbf \r\n\t{"object":  "chat.completion"} '

        def responder(stream: Stream) -> None:
            stream.write(event_stream_head())
            for place in range(len(body)):
                stream.chunk(body[place : place + 1])
            stream.chunk(b"")

        response = await self.asked(responder)
        self.assertEqual((response.status, response.body), (200, body))
        self.assertEqual(response.all("content-type"), ["application/json"])

    async def test_error_that_is_a_stream(self) -> None:
        """An error status is relayed with its type, even if its body is an event stream."""
        for status in (302, 400, 429, 500):
            for fields in ([EVENTS], []):
                response = await self.asked(whole(HELLO, [*fields, ("Location", "/x")], status))
                self.assertEqual((response.status, response.body), (status, HELLO))
                self.assertEqual(response.all("content-type"), [value for _, value in fields])
                self.assertEqual(response.all("location"), ["/x"])

    async def test_neither(self) -> None:
        """Labelled as a stream, a body without any event is an error; without a label it is relayed."""
        for body in (b"", b" \n", b"<html>", b"[1]", b"x" * 200_000):
            self.assert_error(await self.asked(whole(body)), 502, "upstream_error")
            response = await self.asked(whole(body, []))
            self.assertEqual((response.status, response.body, response.all("content-type")), (200, body, []))

    async def test_stream_under_another_type(self) -> None:
        """An event stream is recognized whatever its label and its first bytes."""
        for fields in ([JSON], [], [("Content-Type", "text/plain")]):
            for start in (b"", b"\r\n\n", b"\xef\xbb\xbf", b": hi\n\n", b"event: message\n"):
                self.assert_hello(await self.asked(whole(start + HELLO, fields)))

    async def test_one_byte_at_a_time(self) -> None:
        """The result does not depend on how the bytes are cut."""

        def responder(stream: Stream) -> None:
            stream.write(head(200, [("Transfer-Encoding", "chunked")]))
            for place in range(len(HELLO)):
                stream.chunk(HELLO[place : place + 1])
            stream.chunk(b"")

        self.assert_hello(await self.asked(responder))


class CodingTests(ConversionTestCase):
    """Streams that are compressed although identity was requested."""

    async def test_known(self) -> None:
        """gzip and both forms of deflate are decoded."""
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
        """A relayed response stays compressed, even if it had to be decoded to be recognized."""
        body = gzip.compress(b'{"object": "chat.completion"}')
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
        """A body that cannot be decoded, or ends too early, is a 502."""
        fields = [EVENTS, ("Content-Encoding", "gzip")]
        packed = gzip.compress(START * 50)
        for data in (b"no gzip", packed[: len(packed) // 2]):
            self.assert_error(await self.asked(whole(data, fields)), 502, "upstream_error")

    async def test_nothing_inside(self) -> None:
        """A compressed body that decodes to nothing is judged by its label once enough of it has arrived."""
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
        """The limit counts decoded bytes, not received ones."""
        data = gzip.compress(START + chunk({"content": "x" * 3_000_000}))
        response = await self.asked(
            whole(data, [EVENTS, ("Content-Encoding", "gzip")]), limits=Limits(max_response_bytes=1_000_000)
        )
        self.assert_error(response, 502, "upstream_error", "maxResponseBytes")
        self.assertEqual(response.all("x-should-retry"), ["false"])

    async def test_bomb_of_nothing(self) -> None:
        """Decoded bytes that do not reach the response count too; uncompressed ones never do."""
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
        """A stream with a very high compression ratio, or with junk after its end, is accepted."""
        data = b": x\n" * 100_000 + START + b"\n" * 500_000 + HELLO.removeprefix(START)
        fields = [EVENTS, ("Content-Encoding", "gzip")]
        for end in (b"", b"junk"):
            for packed in (gzip.compress(data), gzip.compress(data.removesuffix(DONE))):
                self.assert_hello(await self.asked(whole(packed + end, fields)))
