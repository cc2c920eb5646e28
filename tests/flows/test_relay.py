"""Requests and answers that pass through: what each side sees of the other on the wire."""

from __future__ import annotations

import gzip

from stream_proxy.limits import Limits
from tests.support.payloads import CHAT
from tests.support.recording import OK, RelayTestCase
from tests.support.wire import Message, Stream, head, read_request, read_response


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


class ConnectionTests(RelayTestCase):
    """Connections on both legs are kept or closed as their ends ask."""

    async def test_reuse(self) -> None:
        """Requests of different clients, one after the other, share an upstream connection."""
        recorder, port = await self.between()
        for _ in range(3):
            self.assertEqual((await self.request(port, "GET", "/v1/x")).status, 200)
        self.assertEqual((len(recorder.requests), len(self.server.connections)), (3, 1))

    async def test_client_keep_alive(self) -> None:
        """One client connection carries several requests, with and without bodies."""
        recorder, port = await self.between()
        client = await self.client(port)
        for body in [b"", b"abc", b""]:
            client.write(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            answer = await read_response(client)
            self.assertEqual((answer.body, answer.get("connection")), (b"ok", None))
        self.assertEqual([message.body for message in recorder.requests], [b"", b"abc", b""])

    async def test_pipelined(self) -> None:
        """Pipelined requests are answered in order."""
        recorder, port = await self.between()
        client = await self.client(port)
        one = b"POST /v1/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n%d\n"
        client.write(b"".join(one % (number, number) for number in range(5)))
        for _ in range(5):
            self.assertEqual((await read_response(client)).status, 200)
        self.assertEqual([message.target for message in recorder.requests], [f"/v1/{n}" for n in range(5)])

    async def test_client_asks_to_close(self) -> None:
        """``close`` among the client's Connection options, in any case and place, closes after the answer."""
        _, port = await self.between()
        for value in [b"close", b"Close", b"close, x", b"x,CLOSE", b"x\r\nConnection: close"]:
            client = await self.client(port)
            client.write(b"GET /v1/x HTTP/1.1\r\nHost: x\r\nConnection: " + value + b"\r\n\r\n")
            answer = await read_response(client)
            self.assertEqual((answer.body, answer.all("connection")), (b"ok", ["close"]), value)
            await client.gone()

    async def test_upstream_asks_to_close(self) -> None:
        """An upstream connection whose answer said ``close``, in any case and place, is not used again."""
        for value in ["close", "Close", "x, close", "CLOSE ,x"]:
            answer = head(200, [("Connection", value), ("Content-Length", "2")]) + b"ok"
            recorder, port = await self.between(answer)
            for _ in range(2):
                got = await self.request(port, "GET", "/v1/x")
                self.assertEqual((got.body, got.get("connection")), (b"ok", None))
            self.assertEqual((len(recorder.requests), len(self.server.connections)), (2, 2), value)

    async def test_old_upstream(self) -> None:
        """An HTTP/1.0 answer closes its connection unless it says keep-alive."""
        for field, count in [("", 2), ("Connection: Keep-Alive\r\n", 1)]:
            _, port = await self.between(f"HTTP/1.0 200 OK\r\n{field}Content-Length: 2\r\n\r\nok".encode())
            for _ in range(2):
                self.assertEqual((await self.request(port, "GET", "/v1/x")).body, b"ok")
            self.assertEqual(len(self.server.connections), count)

    async def test_bytes_after_an_answer(self) -> None:
        """An upstream connection on which more came than the answer is not used again."""
        _, port = await self.between(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        for _ in range(2):
            self.assertEqual((await self.request(port, "GET", "/v1/x")).body, b"ok")
        self.assertEqual(len(self.server.connections), 2)

    async def test_cookies_never_meet(self) -> None:
        """What the upstream sets for one client is not sent for another, nor for the same one unasked."""
        recorder, port = await self.between(head(200, [("Set-Cookie", "sid=alice"), ("Content-Length", "0")]))
        first = await self.request(port, "GET", "/v1/x")
        self.assertEqual(first.all("set-cookie"), ["sid=alice"])
        await self.request(port, "GET", "/v1/x", headers=[("Cookie", "sid=bob")])
        await self.request(port, "GET", "/v1/x")
        self.assertEqual([message.all("cookie") for message in recorder.requests], [[], ["sid=bob"], []])


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
