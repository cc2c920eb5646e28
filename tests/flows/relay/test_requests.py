"""Relayed requests: their targets, header fields and sizes, as the upstream sees them."""

from __future__ import annotations

from stream_proxy.limits import Limits
from tests.support.payloads import CHAT
from tests.support.recording import RelayTestCase
from tests.support.wire import Message, read_response


class TargetTests(RelayTestCase):
    """The upstream's target is the client's, after the prefix of ``upstreamUrl``."""

    async def forwarded(self, target: str, prefix: str = "") -> str:
        recorder, port = await self.between(prefix=prefix)
        response = await self.request(port, "GET", target)
        self.assertEqual(response.status, 200, response.body)
        return recorder.last.target

    async def test_verbatim(self) -> None:
        """No byte of a target is normalised, decoded or encoded."""
        recorder, port = await self.between()
        targets = [
            "/",
            "/v1/models/a%2Fb%20c%7e",
            "/v1/models?",
            "/v1/files?a[]=1&a[]=2",
            "/v1/x|y?z=|",
            "//double//slashes//",
            "/v1/a;p=1?q;r",
            "/v1/a#f",
            "/v1/%E4%BD%A0%e5%a5%bd?q=%C3%A9",
            "/v1/../up/./here",
            "/v1/plus+and%2B?x=a+b",
            '/v1/"quotes"<>{}^`\\',
            "/v1?u=http://other.example/path",
        ]
        for target in targets:
            response = await self.request(port, "GET", target)
            self.assertEqual((response.status, recorder.last.target), (200, target))
        self.assertEqual([message.target for message in recorder.requests], targets)

    async def test_absolute_form(self) -> None:
        """An absolute-form target keeps its path and query and loses its host."""
        self.assertEqual(await self.forwarded("http://other.example:99/v1/a?b=c"), "/v1/a?b=c")
        self.assertEqual(await self.forwarded("HTTPS://other.example/v1/a", "/base"), "/base/v1/a")

    async def test_absolute_form_without_path(self) -> None:
        """An absolute target without a path means the root."""
        self.assertEqual(await self.forwarded("http://other.example"), "/")
        self.assertEqual(await self.forwarded("http://other.example?q=1"), "/?q=1")

    async def test_prefix(self) -> None:
        """The path of ``upstreamUrl`` precedes the target, without its trailing slash."""
        self.assertEqual(await self.forwarded("/v1/models?x", "/api/openai"), "/api/openai/v1/models?x")
        self.assertEqual(await self.forwarded("/v1/models", "/api/openai/"), "/api/openai/v1/models")
        self.assertEqual(await self.forwarded("/", "/api/"), "/api/")

    async def test_refused(self) -> None:
        """Targets that could lead elsewhere, and CONNECT, get an OpenAI-style 400; nothing is dialled."""
        recorder, port = await self.between()
        for method, target in [
            ("GET", ".evil.example/v1"),
            ("GET", "@evil.example/v1"),
            ("OPTIONS", "*"),
            ("GET", "ftp://evil.example/"),
            ("GET", "http:///v1"),
            ("CONNECT", "evil.example:443"),
            ("CONNECT", "/v1"),
            ("GET", "/v1/\x80x"),
            ("GET", "/v1/\xe9"),
            ("GET", "/v1/\x7f"),
        ]:
            response = await self.request(port, method, target)
            self.assertEqual(response.status, 400, target)
            self.assertEqual(response.json()["error"]["type"], "invalid_request_error")
            self.assertEqual(response.get("content-type"), "application/json")
        self.assertEqual((recorder.requests, self.server.connections), ([], []))

    async def test_refused_with_a_body(self) -> None:
        """A client that sent a body together with a refused target receives the refusal."""
        _, port = await self.between()
        for framing, body in [
            (b"Content-Length: 5", b"hello"),
            (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        ]:
            client = await self.client(port)
            client.write(b"POST .evil.example/v1 HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + body)
            response = await read_response(client)
            self.assertEqual((response.status, response.complete), (400, True))
            client.close()
            await client.gone()


class RequestHeaderTests(RelayTestCase):
    """Request header fields are relayed unchanged, except hop-by-hop ones."""

    async def test_nothing_invented(self) -> None:
        """The upstream sees the client's fields and its own host, and no other field."""
        recorder, port = await self.between()
        await self.request(port, "GET", "/v1/models", headers=[("Authorization", "Bearer k"), ("X-A", "1")])
        names = sorted((name.lower(), value) for name, value in recorder.last.headers)
        self.assertEqual(
            names, [("authorization", "Bearer k"), ("host", f"127.0.0.1:{self.server.port}"), ("x-a", "1")]
        )

    async def test_framing_only_where_there_was_some(self) -> None:
        """A DELETE without a body has no length upstream; one with an empty body keeps its zero."""
        recorder, port = await self.between()
        await self.request(port, "DELETE", "/v1/files/1")
        self.assertIsNone(recorder.last.get("content-length"))
        await self.request(port, "DELETE", "/v1/files/1", b"")
        self.assertEqual(recorder.last.get("content-length"), "0")

    async def test_duplicates(self) -> None:
        """Repeated fields stay repeated, in order and with unchanged values."""
        recorder, port = await self.between()
        fields = [
            ("X-Two", "b, c"),
            ("X-Two", "a"),
            ("Cookie", "a=1"),
            ("Cookie", 'b="2"; c'),
            ("X-Latin", "\xe9\x80"),
        ]
        await self.request(port, "GET", "/v1/models", headers=fields)
        self.assertEqual(recorder.last.all("x-two"), ["b, c", "a"])
        self.assertEqual(recorder.last.all("cookie"), ["a=1", 'b="2"; c'])
        self.assertEqual(recorder.last.all("x-latin"), ["\xe9\x80"])

    async def test_hop_by_hop(self) -> None:
        """Hop-by-hop fields, and those that a Connection field lists in any case, are not relayed."""
        recorder, port = await self.between()
        fields = [
            ("Connection", "keep-alive, X-Listed"),
            ("connection", "x-OTHER ,"),
            ("Keep-Alive", "timeout=5"),
            ("X-Listed", "1"),
            ("X-Other", "2"),
            ("TE", "trailers"),
            ("Trailer", "X-T"),
            ("Upgrade", "h2c"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authorization", "Basic x"),
            ("Expect", "something"),
            ("X-Kept", "3"),
        ]
        await self.request(port, "GET", "/v1/models", headers=fields)
        self.assertEqual(sorted(name.lower() for name, _ in recorder.last.headers), ["host", "x-kept"])

    async def test_method_case(self) -> None:
        """Methods are case-sensitive, and any token is a method."""
        recorder, port = await self.between()
        for method in ["get", "PATCH", "M-SEARCH", "post"]:
            await self.request(port, method, "/v1/x", b"")
            self.assertEqual(recorder.last.method, method)

    async def test_expect(self) -> None:
        """The proxy answers ``Expect: 100-continue`` itself and does not forward it."""
        recorder, port = await self.between()
        client = await self.client(port)
        client.write(
            b"POST /v1/files HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
        self.assertEqual((await read_response(client)).status, 100)
        client.write(b"abc")
        self.assertEqual((await read_response(client)).body, b"ok")
        self.assertEqual((recorder.last.body, recorder.last.get("expect")), (b"abc", None))

    async def test_multipart_untouched(self) -> None:
        """A multipart upload is not parsed on the way, even if it is malformed."""
        recorder, port = await self.between()
        form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\x00\xff\r\n--b'
        kind = [("Content-Type", "multipart/form-data; boundary=b")]
        response = await self.request(port, "POST", "/v1/files", form, kind)
        self.assertEqual((response.status, recorder.last.body), (200, form))
        self.assertEqual(recorder.last.all("content-type"), ["multipart/form-data; boundary=b"])

    async def test_form_untouched(self) -> None:
        """A URL-encoded form is not parsed either."""
        recorder, port = await self.between()
        kind = [("Content-Type", "application/x-www-form-urlencoded")]
        await self.request(port, "POST", CHAT, b"a=%zz&b", kind)
        self.assertEqual(recorder.last.body, b"a=%zz&b")


class TooLargeTests(RelayTestCase):
    """Limits of JSON calls, which are buffered; other uploads are neither buffered nor limited."""

    limits = Limits(max_request_bytes=100)

    async def refused(self, stream: str, framing: bytes, body: bytes) -> Message:
        _, port = await self.between(limits=self.limits)
        client = await self.client(port)
        client.write(
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
            + framing
            + b"\r\n\r\n"
            + body
        )
        response = await read_response(client)
        await client.gone()
        self.assertEqual(self.server.connections, [])
        self.assertEqual(response.status, 413)
        return response

    async def test_by_length(self) -> None:
        """A call whose Content-Length exceeds the limit is refused before its body arrives."""
        response = await self.refused("true", b"Content-Length: 101", b"")
        self.assertEqual(response.json()["error"]["type"], "invalid_request_error")
        self.assertIn("100 bytes", response.json()["error"]["message"])

    async def test_by_length_with_its_body(self) -> None:
        """The refusal also reaches a client that sent the body together with the head."""
        await self.refused("true", b"Content-Length: 101", b"x" * 101)

    async def test_when_it_grows(self) -> None:
        """A chunked call is refused once it exceeds the limit, streaming or not."""
        for flag in [b"true", b"false"]:
            body = b'{"model": "m", "stream": ' + flag + b', "messages": "' + b"x" * 100
            await self.refused("true", b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (len(body), body))

    async def test_whole_chunked_body(self) -> None:
        """The refusal of a chunked call also reaches a client that sent the whole body."""
        body = b"40\r\n" + b"x" * 64 + b"\r\n40\r\n" + b"x" * 64 + b"\r\n0\r\n\r\n"
        await self.refused("true", b"Transfer-Encoding: chunked", body)

    async def test_edge(self) -> None:
        """A call of exactly the limit is accepted."""
        recorder, port = await self.between(limits=self.limits)
        body = b'{"stream": true}'.ljust(100)
        response = await self.request(port, "POST", CHAT, body, [("Content-Type", "application/json")])
        self.assertEqual((response.status, recorder.last.body), (200, body))

    async def test_other_uploads(self) -> None:
        """The limit does not apply to other paths and content types."""
        recorder, port = await self.between(limits=self.limits)
        for target, kind in [("/v1/files", "application/json"), (CHAT, "text/plain")]:
            response = await self.request(port, "POST", target, b"x" * 1000, [("Content-Type", kind)])
            self.assertEqual((response.status, len(recorder.last.body)), (200, 1000))
