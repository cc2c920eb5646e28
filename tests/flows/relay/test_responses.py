"""Relayed responses, as the client receives them on the wire."""

from __future__ import annotations

import gzip

from twisted.internet.defer import Deferred
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource

from stream_proxy import ProxyResource, ProxySite
from stream_proxy.request_log import RequestLog
from tests.support.loopback import Lines, reactor
from tests.support.recording import OK, RelayTestCase
from tests.support.wire import GET, Message, Stream, head, read_body, read_head, read_request, read_response


class ResponseTests(RelayTestCase):
    """Responses reach the client as the upstream sent them."""

    async def test_whole(self) -> None:
        """A response that comes in one read is written at once; nobody has to pause it."""
        register, registered = HTTPChannel.registerProducer, []

        def noting(channel: HTTPChannel, producer: object, streaming: bool) -> None:
            registered.append(producer)
            register(channel, producer, streaming)

        self.patch(HTTPChannel, "registerProducer", noting)
        fields = head(200, [("Content-Length", "2")])
        for first, count in ((fields + b"ok", 0), (fields + b"o", 1), (fields, 1)):
            registered.clear()
            seen: Deferred[None] = Deferred()

            async def script(stream: Stream, first: bytes = first, seen: Deferred[None] = seen) -> None:
                await read_request(stream)
                stream.write(first)
                await seen
                stream.write((fields + b"ok")[len(first) :])

            port = await self.proxy((await self.upstream(script)).url)
            client = await self.client(port)
            client.write(GET)
            message = await read_head(client)
            seen.callback(None)
            response = await read_body(client, message, closes=False)
            self.assertEqual((response.body, response.complete), (b"ok", True))
            self.assertEqual(len(registered), count, first)

    async def test_nothing_invented(self) -> None:
        """The proxy adds no Server, Date, Content-Type or Content-Encoding."""
        response = await self.response_to(head(200, [("X-A", "1"), ("Content-Length", "2")]) + b"ok")
        fields = sorted((name.lower(), value) for name, value in response.headers)
        self.assertEqual((fields, response.body), ([("content-length", "2"), ("x-a", "1")], b"ok"))

    async def test_own_server_and_date(self) -> None:
        """The upstream's own Server and Date are relayed."""
        fields = [("Server", "up/1"), ("Date", "yesterday"), ("Content-Length", "0")]
        response = await self.response_to(head(200, fields))
        self.assertEqual((response.all("server"), response.all("date")), (["up/1"], ["yesterday"]))

    async def test_duplicates(self) -> None:
        """Repeated fields, Set-Cookie among them, stay repeated."""
        cookies = [
            ("Set-Cookie", "a=1; Path=/"),
            ("Set-Cookie", "b=2; Expires=Wed, 01 Jan 2031 00:00:00 GMT"),
        ]
        response = await self.response_to(
            head(200, [*cookies, ("Vary", "a"), ("Vary", "b"), ("Content-Length", "0")])
        )
        self.assertEqual(response.all("set-cookie"), [value for _, value in cookies])
        self.assertEqual(response.all("vary"), ["a", "b"])

    async def test_hop_by_hop(self) -> None:
        """Hop-by-hop fields, and those that the upstream's Connection fields list, are not relayed."""
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
        response = await self.response_to(head(200, fields))
        self.assertEqual(sorted(name.lower() for name, _ in response.headers), ["content-length", "x-kept"])

    async def test_compressed_untouched(self) -> None:
        """Compressed bodies are relayed unchanged, with their Content-Encoding."""
        packed = gzip.compress(b"hello")
        for coding, body in [
            ("gzip", packed),
            ("br", b"\x0b\x02\x80hello\x03"),
            ("gzip", b"not gzip at all"),
        ]:
            fields = [("Content-Encoding", coding), ("Content-Length", str(len(body)))]
            response = await self.response_to(head(200, fields) + body)
            self.assertEqual((response.body, response.all("content-encoding")), (body, [coding]))

    async def test_no_content(self) -> None:
        """A 204 has neither a body nor framing."""
        response = await self.response_to(head(204, [("X-A", "1")], "No Content"), "DELETE")
        self.assertEqual((response.line, response.headers), ("HTTP/1.1 204 No Content", [("X-A", "1")]))

    async def test_not_modified(self) -> None:
        """A 304 keeps its fields, including the length that a 200 would have had, and ends with its head."""
        fields = [("ETag", '"x"'), ("Content-Length", "1234")]
        recorder, port = await self.between(head(304, fields, "Not Modified"))
        client = await self.client(port)
        for count in (1, 2):
            client.write(b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n")
            response = await read_response(client)
            self.assertEqual((response.status, response.get("etag")), (304, '"x"'))
            self.assertEqual(response.all("content-length"), ["1234"])
            self.assertEqual(len(recorder.requests), count)

    async def test_head(self) -> None:
        """A HEAD response keeps the length that a GET would have had, and no body is expected."""
        recorder, port = await self.between(head(200, [("Content-Length", "1234"), ("Content-Type", "a/b")]))
        client = await self.client(port)
        for _ in range(2):
            client.write(b"HEAD /v1/x HTTP/1.1\r\nHost: x\r\n\r\n")
            response = await read_response(client, "HEAD")
            self.assertEqual(response.headers, [("Content-Type", "a/b"), ("Content-Length", "1234")])
        self.assertEqual([message.method for message in recorder.requests], ["HEAD", "HEAD"])

    async def test_head_of_a_chunked_resource(self) -> None:
        """A HEAD response without a length gets none."""
        response = await self.response_to(head(200, [("Transfer-Encoding", "chunked"), ("X-A", "1")]), "HEAD")
        self.assertEqual(response.headers, [("X-A", "1")])

    async def test_redirect(self) -> None:
        """Redirects are left to the client."""
        recorder, port = await self.between(
            head(307, [("Location", "/elsewhere"), ("Content-Length", "0")], "Temporary Redirect")
        )
        response = await self.request(port, "GET", "/v1/x")
        self.assertEqual((response.status, response.get("location")), (307, "/elsewhere"))
        self.assertEqual(len(recorder.requests), 1)

    async def moved(self, prefix: str, where: str, target: str = "/v1/x", mount: bytes = b"") -> Message:
        """Return the response to a redirect to `where` below the upstream's own origin."""

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                url = f"http://{request.get('host')}{where}"
                stream.write(
                    head(307, [("Location", url), ("Content-Location", url), ("Content-Length", "0")])
                )

        upstream = await self.upstream(script)
        if not mount:
            return await self.request(await self.proxy(upstream.url + prefix), "GET", target)
        root = Resource()
        proxy = ProxyResource(upstream.url + prefix, reactor=reactor)
        self.addCleanup(proxy.close)
        root.putChild(mount, proxy)
        port = await self.listen(ProxySite(root, reactor=reactor))
        return await self.request(port, "GET", target)

    async def test_own_location(self) -> None:
        """A redirect to the upstream's own URL leads back to the proxy, without the upstream's prefix."""
        for prefix, where, target, mount, expected in (
            ("", "/v1/x/", "/v1/x", b"", "/v1/x/"),
            ("/api", "/api/v1/x/?a=b", "/v1/x", b"", "/v1/x/?a=b"),
            ("/api", "/api/v1/x/", "http://any/v1/x", b"", "/v1/x/"),
            ("/api", "/api/v1/x/", "/ai/v1/x?q", b"ai", "/ai/v1/x/"),
            ("/api", "/api/", "/ai", b"ai", "/ai/"),
        ):
            response = await self.moved(prefix, where, target, mount)
            self.assertEqual(
                (response.get("location"), response.get("content-location")), (expected, expected)
            )
        response = await self.moved("/api", "/login")
        self.assertRegex(response.get("location") or "", r"\Ahttp://127\.0\.0\.1:\d+/login\Z")

    async def test_doubled_version(self) -> None:
        """A 404 for a path with a doubled version makes one warning, which says what to change."""
        lines = Lines()
        for prefix, target in (("/v1", "/v1/models?key=secret"), ("", "/v1/v1/models")):
            lines.lines.clear()
            _, port = await self.between(
                head(404, [("Content-Length", "0")]), prefix, log=RequestLog(observer=lines)
            )
            for path in ("/models", target, target):
                self.assertEqual((await self.request(port, "GET", path)).status, 404)
            warnings = [line for line in lines.lines if "/v1/v1;" in line]
            self.assertEqual(len(warnings), 1, lines.lines)
            self.assertIn("remove /v1 from the end of upstreamUrl, or of the client's base URL", warnings[0])
            self.assertNotIn("secret", "".join(lines.lines))

    async def test_reason_phrases(self) -> None:
        """Status and reason phrase are kept, even if unusual, empty or missing."""
        for line in ["HTTP/1.1 200 All is well", "HTTP/1.1 418 ", "HTTP/1.1 299 \xe9", "HTTP/1.1 599 x"]:
            response = await self.response_to(f"{line}\r\nContent-Length: 0\r\n\r\n".encode("latin-1"))
            self.assertEqual(response.line, line)
        response = await self.response_to(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(response.line, "HTTP/1.1 200 ")

    async def test_chunked(self) -> None:
        """A chunked body arrives chunked, without its trailers."""
        body = b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n"
        response = await self.response_to(head(200, [("Transfer-Encoding", "chunked")]) + body)
        self.assertEqual((response.body, response.complete), (b"hello world", True))
        self.assertEqual(response.headers, [("Transfer-Encoding", "chunked")])

    async def test_close_delimited(self) -> None:
        """A close-delimited body arrives chunked, and complete."""
        response = await self.response_to(head(200) + b"hello", close=True)
        self.assertEqual((response.body, response.complete), (b"hello", True))
        self.assertEqual(response.get("transfer-encoding"), "chunked")

    async def test_http_1_0_upstream(self) -> None:
        """The response of an HTTP/1.0 upstream goes out as HTTP/1.1."""
        response = await self.response_to(b"HTTP/1.0 200 OK\r\n\r\nhello", close=True)
        self.assertEqual(
            (response.line, response.body, response.complete), ("HTTP/1.1 200 OK", b"hello", True)
        )

    async def test_informational(self) -> None:
        """The upstream's 1xx responses are not relayed."""
        response = await self.response_to(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + OK)
        self.assertEqual((response.status, response.get("link"), response.body), (200, None, b"ok"))

    async def test_identical_lengths(self) -> None:
        """Several equal Content-Length fields become one."""
        response = await self.response_to(
            head(200, [("Content-Length", "2"), ("Content-Length", "2")]) + b"ok"
        )
        self.assertEqual((response.all("content-length"), response.body), (["2"], b"ok"))

    async def test_error_statuses(self) -> None:
        """An upstream's error is relayed with its status and body."""
        body = b'{"error": {"message": "no"}}'
        response = await self.response_to(
            head(429, [("Retry-After", "7"), ("Content-Length", "28")], "Slow") + body
        )
        self.assertEqual((response.status, response.get("retry-after"), response.body), (429, "7", body))


class HTTP10Tests(RelayTestCase):
    """HTTP/1.0 clients get responses that they can parse."""

    async def old(self, response: bytes, close: bool = False) -> bytes:
        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(response)
            if close:
                stream.close()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(b"GET /v1/x HTTP/1.0\r\n\r\n")
        return await client.rest()

    async def test_chunked_upstream(self) -> None:
        """An HTTP/1.0 client gets no chunks; the close ends the body, and nothing announces it."""
        got = await self.old(head(200, [("Transfer-Encoding", "chunked")]) + b"5\r\nhello\r\n0\r\n\r\n")
        self.assertEqual(got, b"HTTP/1.0 200 OK\r\n\r\nhello")

    async def test_length(self) -> None:
        """A Content-Length is kept, and the connection closes after the body."""
        got = await self.old(OK)
        self.assertIn(b"Content-Length: 2\r\n", got)
        self.assertTrue(got.endswith(b"\r\n\r\nok"))
