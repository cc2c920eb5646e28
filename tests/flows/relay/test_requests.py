"""Relayed requests: their targets, header fields and sizes, as the upstream sees them."""

from __future__ import annotations

from stream_proxy.limits import Limits
from tests.support.payloads import CHAT
from tests.support.recording import RelayTestCase
from tests.support.wire import Message, read_response


class TargetTests(RelayTestCase):
    """The request target is the client's, behind the rule's scheme, host and prefix."""

    async def forwarded(self, target: str, prefix: str = "") -> str:
        recorder, port = await self.between(prefix=prefix)
        answer = await self.request(port, "GET", target)
        self.assertEqual(answer.status, 200, answer.body)
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
            answer = await self.request(port, "GET", target)
            self.assertEqual((answer.status, recorder.last.target), (200, target))
        self.assertEqual([message.target for message in recorder.requests], targets)

    async def test_absolute_form(self) -> None:
        """Of a target in absolute form path and query count; the host does not."""
        self.assertEqual(await self.forwarded("http://other.example:99/v1/a?b=c"), "/v1/a?b=c")
        self.assertEqual(await self.forwarded("HTTPS://other.example/v1/a", "/base"), "/base/v1/a")

    async def test_absolute_form_without_path(self) -> None:
        """An absolute target without a path means the root."""
        self.assertEqual(await self.forwarded("http://other.example"), "/")
        self.assertEqual(await self.forwarded("http://other.example?q=1"), "/?q=1")

    async def test_prefix(self) -> None:
        """The path of upstreamUrl goes before the target, its trailing slash does not."""
        self.assertEqual(await self.forwarded("/v1/models?x", "/api/openai"), "/api/openai/v1/models?x")
        self.assertEqual(await self.forwarded("/v1/models", "/api/openai/"), "/api/openai/v1/models")
        self.assertEqual(await self.forwarded("/", "/api/"), "/api/")

    async def test_refused(self) -> None:
        """Targets that could lead elsewhere, and CONNECT, are a 400 in OpenAI's form; nothing is dialled."""
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
            answer = await self.request(port, method, target)
            self.assertEqual(answer.status, 400, target)
            self.assertEqual(answer.json()["error"]["type"], "invalid_request_error")
            self.assertEqual(answer.get("content-type"), "application/json")
        self.assertEqual((recorder.requests, self.server.connections), ([], []))

    async def test_refused_with_a_body(self) -> None:
        """The refusal of a target reaches a client that sent a body in the same breath."""
        _, port = await self.between()
        for framing, body in [
            (b"Content-Length: 5", b"hello"),
            (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        ]:
            client = await self.client(port)
            client.write(b"POST .evil.example/v1 HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + body)
            answer = await read_response(client)
            self.assertEqual((answer.status, answer.complete), (400, True))
            client.close()
            await client.gone()


class RequestHeaderTests(RelayTestCase):
    """Request header fields travel as they are, but those that belong to one connection."""

    async def test_nothing_invented(self) -> None:
        """The upstream sees the client's fields, its own host, and not one field more."""
        recorder, port = await self.between()
        await self.request(port, "GET", "/v1/models", headers=[("Authorization", "Bearer k"), ("X-A", "1")])
        names = sorted((name.lower(), value) for name, value in recorder.last.headers)
        self.assertEqual(
            names, [("authorization", "Bearer k"), ("host", f"127.0.0.1:{self.server.port}"), ("x-a", "1")]
        )

    async def test_framing_only_where_there_was_some(self) -> None:
        """A bodiless DELETE has no length upstream, one with an empty body keeps its zero."""
        recorder, port = await self.between()
        await self.request(port, "DELETE", "/v1/files/1")
        self.assertIsNone(recorder.last.get("content-length"))
        await self.request(port, "DELETE", "/v1/files/1", b"")
        self.assertEqual(recorder.last.get("content-length"), "0")

    async def test_duplicates(self) -> None:
        """A field that came twice goes twice, with its values untouched and in order."""
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
        """Hop-by-hop fields, and all that any Connection field lists in any case, end at the proxy."""
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
        """Methods are case-sensitive and any token."""
        recorder, port = await self.between()
        for method in ["get", "PATCH", "M-SEARCH", "post"]:
            await self.request(port, method, "/v1/x", b"")
            self.assertEqual(recorder.last.method, method)

    async def test_expect(self) -> None:
        """``Expect: 100-continue`` is answered by the proxy and not forwarded."""
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
        """A multipart upload, even a malformed one, is not parsed on the way."""
        recorder, port = await self.between()
        form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\x00\xff\r\n--b'
        kind = [("Content-Type", "multipart/form-data; boundary=b")]
        answer = await self.request(port, "POST", "/v1/files", form, kind)
        self.assertEqual((answer.status, recorder.last.body), (200, form))
        self.assertEqual(recorder.last.all("content-type"), ["multipart/form-data; boundary=b"])

    async def test_form_untouched(self) -> None:
        """So is an URL-encoded form."""
        recorder, port = await self.between()
        kind = [("Content-Type", "application/x-www-form-urlencoded")]
        await self.request(port, "POST", CHAT, b"a=%zz&b", kind)
        self.assertEqual(recorder.last.body, b"a=%zz&b")


class TooLargeTests(RelayTestCase):
    """JSON calls are held, within a bound; other uploads are not, and have none."""

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
        answer = await read_response(client)
        await client.gone()
        self.assertEqual(self.server.connections, [])
        self.assertEqual(answer.status, 413)
        return answer

    async def test_by_length(self) -> None:
        """A call whose length is over the limit is refused before its body came."""
        answer = await self.refused("true", b"Content-Length: 101", b"")
        self.assertEqual(answer.json()["error"]["type"], "invalid_request_error")
        self.assertIn("100 bytes", answer.json()["error"]["message"])

    async def test_by_length_with_its_body(self) -> None:
        """The same where the body came along."""
        await self.refused("true", b"Content-Length: 101", b"x" * 101)

    async def test_when_it_grows(self) -> None:
        """A chunked call is refused when it has grown over the limit, streaming or not."""
        for flag in [b"true", b"false"]:
            body = b'{"model": "m", "stream": ' + flag + b', "messages": "' + b"x" * 100
            await self.refused("true", b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (len(body), body))

    async def test_whole_chunked_body(self) -> None:
        """The same where the rest of the body came along."""
        body = b"40\r\n" + b"x" * 64 + b"\r\n40\r\n" + b"x" * 64 + b"\r\n0\r\n\r\n"
        await self.refused("true", b"Transfer-Encoding: chunked", body)

    async def test_edge(self) -> None:
        """A call of exactly the limit passes."""
        recorder, port = await self.between(limits=self.limits)
        body = b'{"stream": true}'.ljust(100)
        answer = await self.request(port, "POST", CHAT, body, [("Content-Type", "application/json")])
        self.assertEqual((answer.status, recorder.last.body), (200, body))

    async def test_other_uploads(self) -> None:
        """The limit is that of JSON calls to the converted paths alone."""
        recorder, port = await self.between(limits=self.limits)
        for target, kind in [("/v1/files", "application/json"), (CHAT, "text/plain")]:
            answer = await self.request(port, "POST", target, b"x" * 1000, [("Content-Type", kind)])
            self.assertEqual((answer.status, len(recorder.last.body)), (200, 1000))
