"""Relayed responses: what the client receives of them on the wire."""

from __future__ import annotations

import gzip

from tests.support.recording import OK, RelayTestCase
from tests.support.wire import Stream, head, read_request, read_response


class AnswerTests(RelayTestCase):
    """Answers reach the client as the upstream gave them."""

    async def test_nothing_invented(self) -> None:
        """The client gets no Server, Date, Content-Type or Content-Encoding of the proxy's."""
        answer = await self.response_to(head(200, [("X-A", "1"), ("Content-Length", "2")]) + b"ok")
        fields = sorted((name.lower(), value) for name, value in answer.headers)
        self.assertEqual((fields, answer.body), ([("content-length", "2"), ("x-a", "1")], b"ok"))

    async def test_own_server_and_date(self) -> None:
        """The upstream's own Server and Date travel."""
        fields = [("Server", "up/1"), ("Date", "yesterday"), ("Content-Length", "0")]
        answer = await self.response_to(head(200, fields))
        self.assertEqual((answer.all("server"), answer.all("date")), (["up/1"], ["yesterday"]))

    async def test_duplicates(self) -> None:
        """Several Set-Cookies, and every other repeated field, stay as many as they were."""
        cookies = [
            ("Set-Cookie", "a=1; Path=/"),
            ("Set-Cookie", "b=2; Expires=Wed, 01 Jan 2031 00:00:00 GMT"),
        ]
        answer = await self.response_to(
            head(200, [*cookies, ("Vary", "a"), ("Vary", "b"), ("Content-Length", "0")])
        )
        self.assertEqual(answer.all("set-cookie"), [value for _, value in cookies])
        self.assertEqual(answer.all("vary"), ["a", "b"])

    async def test_hop_by_hop(self) -> None:
        """Hop-by-hop fields and those that the upstream's Connection fields list end at the proxy."""
        fields = [
            ("Connection", "X-Listed"),
            ("CONNECTION", "keep-alive , x-other"),
            ("Keep-Alive", "timeout=5"),
            ("X-Listed", "1"),
            ("X-Other", "2"),
            ("Proxy-Authenticate", "Basic"),
            ("Proxy-Connection", "keep-alive"),
            ("Trailer", "X-T"),
            ("Upgrade", "h2"),
            ("X-Kept", "3"),
            ("Content-Length", "0"),
        ]
        answer = await self.response_to(head(200, fields))
        self.assertEqual(sorted(name.lower() for name, _ in answer.headers), ["content-length", "x-kept"])

    async def test_compressed_untouched(self) -> None:
        """Compressed bodies are passed on as they are, with their Content-Encoding."""
        packed = gzip.compress(b"hello")
        for coding, body in [
            ("gzip", packed),
            ("br", b"\x0b\x02\x80hello\x03"),
            ("gzip", b"not gzip at all"),
        ]:
            fields = [("Content-Encoding", coding), ("Content-Length", str(len(body)))]
            answer = await self.response_to(head(200, fields) + body)
            self.assertEqual((answer.body, answer.all("content-encoding")), (body, [coding]))

    async def test_no_content(self) -> None:
        """A 204 has no body and no framing."""
        answer = await self.response_to(head(204, [("X-A", "1")], "No Content"), "DELETE")
        self.assertEqual((answer.line, answer.headers), ("HTTP/1.1 204 No Content", [("X-A", "1")]))

    async def test_not_modified(self) -> None:
        """A 304 keeps its fields, the length that a 200 would have had among them, and ends with its head."""
        fields = [("ETag", '"x"'), ("Content-Length", "1234")]
        recorder, port = await self.between(head(304, fields, "Not Modified"))
        client = await self.client(port)
        for count in (1, 2):
            client.write(b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await read_response(client)
            self.assertEqual((answer.status, answer.get("etag")), (304, '"x"'))
            self.assertEqual(answer.all("content-length"), ["1234"])
            self.assertEqual(len(recorder.requests), count)

    async def test_head(self) -> None:
        """A HEAD keeps the length of the body that a GET would have had, and no body is waited for."""
        recorder, port = await self.between(head(200, [("Content-Length", "1234"), ("Content-Type", "a/b")]))
        client = await self.client(port)
        for _ in range(2):
            client.write(b"HEAD /v1/x HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await read_response(client, "HEAD")
            self.assertEqual(answer.headers, [("Content-Type", "a/b"), ("Content-Length", "1234")])
        self.assertEqual([message.method for message in recorder.requests], ["HEAD", "HEAD"])

    async def test_head_of_a_chunked_resource(self) -> None:
        """A HEAD whose answer has no length gets none."""
        answer = await self.response_to(head(200, [("Transfer-Encoding", "chunked"), ("X-A", "1")]), "HEAD")
        self.assertEqual(answer.headers, [("X-A", "1")])

    async def test_redirect(self) -> None:
        """Redirects are the client's to follow."""
        recorder, port = await self.between(
            head(307, [("Location", "/elsewhere"), ("Content-Length", "0")], "Temporary Redirect")
        )
        answer = await self.request(port, "GET", "/v1/x")
        self.assertEqual((answer.status, answer.get("location")), (307, "/elsewhere"))
        self.assertEqual(len(recorder.requests), 1)

    async def test_reason_phrases(self) -> None:
        """Status and reason phrase stay, unusual, empty and missing ones too."""
        for line in ["HTTP/1.1 200 All is well", "HTTP/1.1 418 ", "HTTP/1.1 299 \xe9", "HTTP/1.1 599 x"]:
            answer = await self.response_to(f"{line}\r\nContent-Length: 0\r\n\r\n".encode("latin-1"))
            self.assertEqual(answer.line, line)
        answer = await self.response_to(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(answer.line, "HTTP/1.1 200 ")

    async def test_chunked(self) -> None:
        """A chunked body arrives chunked; its trailers do not travel."""
        body = b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n"
        answer = await self.response_to(head(200, [("Transfer-Encoding", "chunked")]) + body)
        self.assertEqual((answer.body, answer.complete), (b"hello world", True))
        self.assertEqual(answer.headers, [("Transfer-Encoding", "chunked")])

    async def test_close_delimited(self) -> None:
        """A body that ends with the connection arrives chunked, and complete."""
        answer = await self.response_to(head(200) + b"hello", close=True)
        self.assertEqual((answer.body, answer.complete), (b"hello", True))
        self.assertEqual(answer.get("transfer-encoding"), "chunked")

    async def test_http_1_0_upstream(self) -> None:
        """An HTTP/1.0 upstream's answer goes out as HTTP/1.1."""
        answer = await self.response_to(b"HTTP/1.0 200 OK\r\n\r\nhello", close=True)
        self.assertEqual((answer.line, answer.body, answer.complete), ("HTTP/1.1 200 OK", b"hello", True))

    async def test_informational(self) -> None:
        """The upstream's 1xx answers are not relayed."""
        answer = await self.response_to(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + OK)
        self.assertEqual((answer.status, answer.get("link"), answer.body), (200, None, b"ok"))

    async def test_identical_lengths(self) -> None:
        """A length that the upstream states twice alike is stated once."""
        answer = await self.response_to(head(200, [("Content-Length", "2"), ("Content-Length", "2")]) + b"ok")
        self.assertEqual((answer.all("content-length"), answer.body), (["2"], b"ok"))

    async def test_error_statuses(self) -> None:
        """An upstream's error is its own affair: status and body stay."""
        body = b'{"error": {"message": "no"}}'
        answer = await self.response_to(
            head(429, [("Retry-After", "7"), ("Content-Length", "28")], "Slow") + body
        )
        self.assertEqual((answer.status, answer.get("retry-after"), answer.body), (429, "7", body))


class HTTP10Tests(RelayTestCase):
    """HTTP/1.0 clients are served as they can take it."""

    async def old(self, answer: bytes, close: bool = False) -> bytes:
        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(answer)
            if close:
                stream.close()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(b"GET /v1/x HTTP/1.0\r\n\r\n")
        return await client.rest()

    async def test_chunked_upstream(self) -> None:
        """No chunks go to a client that cannot know them; the close is the end."""
        got = await self.old(head(200, [("Transfer-Encoding", "chunked")]) + b"5\r\nhello\r\n0\r\n\r\n")
        self.assertEqual(got, b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nhello")

    async def test_length(self) -> None:
        """A length is kept, and the connection closes after it."""
        got = await self.old(OK)
        self.assertIn(b"Content-Length: 2\r\n", got)
        self.assertTrue(got.endswith(b"\r\n\r\nok"))
