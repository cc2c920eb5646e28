"""Handshakes of clients: forwarded fields, and malformed handshakes."""

from __future__ import annotations

from functools import partial

from stream_proxy.http.access import Access
from tests.support.sessions import (
    HANDSHAKE,
    HANDSHAKE_KEY,
    UPGRADE,
    VERSION,
    WebSocketTestCase,
    accepted,
    handshake,
)
from tests.support.wire import Headers, Stream, read_request, respond


class HeaderTests(WebSocketTestCase):
    """Header fields in both directions."""

    async def test_request(self) -> None:
        """Method, path, query and fields are forwarded unchanged; the handshake's own fields are new."""
        fields = [
            ("Authorization", "Bearer sk-1"),
            ("Openai-Beta", "realtime=v1"),
            ("Origin", "https://app.example:8443"),
            ("Cookie", "a=1"),
            ("Cookie", "b=2; c=\xfc"),
            ("User-Agent", "agent/1"),
            ("X-Empty", ""),
        ]
        pair = await self.open(fields, target="/any/path;p=1/%2F?model=a%20b&x[]=1&&")
        request = pair.request
        self.assertEqual(request.line, "GET /any/path;p=1/%2F?model=a%20b&x[]=1&& HTTP/1.1")
        sent = sorted(field for field in request.headers if field[0] != "Sec-WebSocket-Key")
        expected = [*fields, *UPGRADE, VERSION, ("Host", f"127.0.0.1:{pair.server.transport.getHost().port}")]
        self.assertEqual(sent, sorted(expected))
        self.assertEqual(len(request.all("Sec-WebSocket-Key")), 1)
        self.assertNotEqual(request.get("Sec-WebSocket-Key"), HANDSHAKE_KEY[1])

    async def test_hop_by_hop(self) -> None:
        """Hop-by-hop fields, and those that `Connection` lists, are removed in both directions."""
        fields = [
            ("Connection", "X-Hop, keep-alive"),
            ("X-Hop", "1"),
            ("TE", "trailers"),
            ("Keep-Alive", "5"),
        ]
        answer = [("Connection", "X-Back"), ("X-Back", "1"), ("Keep-Alive", "timeout=5")]
        pair = await self.open(fields, answer=lambda request: accepted(request, answer))
        self.assertEqual(pair.request.all("connection"), ["Upgrade"])
        self.assertEqual(pair.response.all("connection"), ["Upgrade"])
        for name in ("x-hop", "te", "keep-alive", "x-back"):
            self.assertEqual(pair.request.all(name) + pair.response.all(name), [], name)

    async def test_framing(self) -> None:
        """A 101 has no body, so fields that frame one do not reach the client."""
        answer = [
            ("Content-Length", "5"),
            ("content-length", "7"),
            ("Transfer-Encoding", "chunked"),
            ("X", "1"),
        ]
        pair = await self.open(answer=lambda request: accepted(request, answer))
        self.assertEqual(pair.response.get("x"), "1")
        for name in ("content-length", "transfer-encoding"):
            self.assertEqual(pair.response.all(name), [], name)

    async def test_hidden_cookie(self) -> None:
        """A cookie that only some readers see in a 101 reaches nobody: the handshake is a 502."""
        for value in ("a\nSet-Cookie: sid=evil", "a\rSet-Cookie: sid=evil", "a\r\n Set-Cookie: sid=evil"):
            answer = partial(accepted, headers=[("X-A", value)])
            upstream, _ = await self.accepting(answer)
            port = await self.proxy(upstream.url, access=Access([b"client-key"], b"sk-own"))
            response = await self.refused(port, handshake([*HANDSHAKE, ("api-key", "client-key")]))
            self.assertEqual(response.status, 502)

    async def test_prefix(self) -> None:
        """The path of the upstream's URL is a prefix of the client's."""
        pair = await self.open(target="/realtime?x=1", prefix="/api/v2/")
        self.assertEqual(pair.request.target, "/api/v2/realtime?x=1")

    async def test_absolute_target(self) -> None:
        """Of a target in absolute form only path and query are used."""
        pair = await self.open(target="http://elsewhere.example/realtime?x=1")
        self.assertEqual(pair.request.target, "/realtime?x=1")

    async def test_response(self) -> None:
        """The 101 has the upstream's fields, unchanged and as often as they came, and no others."""
        fields = [
            ("Set-Cookie", "a=1; Path=/"),
            ("Set-Cookie", "b=2"),
            ("X-Request-Id", "req_1"),
            ("Server", "up"),
            ("X-Odd", "caf\xe9 \u00df"),
        ]
        pair = await self.open(answer=lambda request: accepted(request, fields))
        own = [field for field in pair.response.headers if field[0].lower() in ("upgrade", "connection")]
        self.assertEqual([(name, value.lower()) for name, value in own], [(n, v.lower()) for n, v in UPGRADE])
        rest = [field for field in pair.response.headers if field not in own]
        accept = ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        self.assertEqual(sorted(rest), sorted([*fields, accept]))

    async def test_subprotocol(self) -> None:
        """The client's offers are forwarded unchanged, and so is the upstream's choice, if it makes one."""
        offers = [
            ("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.x"),
            ("Sec-WebSocket-Protocol", "z"),
        ]
        for offer, choice in ((offers, "realtime"), (offers, "z"), (offers, None), ([], None)):
            fields = [("Sec-WebSocket-Protocol", choice)] if choice else []
            pair = await self.open(offer, answer=partial(accepted, headers=fields))
            self.assertEqual(pair.request.all("sec-websocket-protocol"), [value for _, value in offer])
            self.assertEqual(pair.response.all("sec-websocket-protocol"), [choice] if choice else [])

    async def test_extensions(self) -> None:
        """The client's extensions are not offered to the upstream."""
        pair = await self.open([("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")])
        self.assertEqual(pair.request.all("sec-websocket-extensions"), [])
        self.assertEqual(pair.response.all("sec-websocket-extensions"), [])

    async def test_connection_of_many_words(self) -> None:
        """`Connection` and `Upgrade` are case-insensitive lists."""
        upstream, came = await self.accepting()
        fields = [
            ("Upgrade", "foo, WebSocket"),
            ("Connection", "keep-alive, UPGRADE"),
            HANDSHAKE_KEY,
            VERSION,
        ]
        pair = await self.join(await self.proxy(upstream.url), came, handshake(fields))
        self.assertEqual(pair.request.all("upgrade"), ["websocket"])


class MalformedTests(WebSocketTestCase):
    """A malformed handshake gets a 400, and no upstream is called."""

    async def test_malformed(self) -> None:
        """One valid key, one supported version, no subprotocol twice, and no body are required."""
        upstream, _ = await self.accepting()
        port = await self.proxy(upstream.url)
        protocols = ("Sec-WebSocket-Protocol", "openai-insecure-api-key.x, openai-insecure-api-key.x")
        cases: tuple[tuple[Headers, str], ...] = (
            ((VERSION,), "Key header missing"),
            ((("Sec-WebSocket-Key", "c2hvcnQ="), VERSION), "bad Sec-WebSocket-Key"),
            ((("Sec-WebSocket-Key", "!" * 22 + "=="), VERSION), "bad character"),
            ((HANDSHAKE_KEY, HANDSHAKE_KEY, VERSION), "Key header appears more than once"),
            ((HANDSHAKE_KEY,), "Hixie76 protocol not supported"),
            ((HANDSHAKE_KEY, ("Sec-WebSocket-Version", "8")), "version 8 not supported"),
            ((HANDSHAKE_KEY, ("Sec-WebSocket-Version", "x")), "Sec-WebSocket-Version"),
            ((HANDSHAKE_KEY, VERSION, VERSION), "Version header appears more than once"),
            ((HANDSHAKE_KEY, VERSION, protocols), "Protocol names one twice"),
            ((HANDSHAKE_KEY, VERSION, ("Transfer-Encoding", "chunked")), "has a body"),
            ((HANDSHAKE_KEY, VERSION, ("Content-Length", "4")), "has a body"),
        )
        for fields, message in cases:
            response = await self.refused(port, handshake([*UPGRADE, *fields]))
            self.assert_error(response, 400, "invalid_request_error", f"is malformed: .*{message}")
            if "version 8" in message:
                self.assertEqual(response.get("sec-websocket-version"), "13")
        self.assertEqual(upstream.connections, [])
        for outcome in self.outcomes:
            self.assertNotRegex(str(outcome), "insecure|c2hvcnQ|!!")

    async def test_empty_body(self) -> None:
        """A `Content-Length` of 0 is allowed."""
        pair = await self.open([("Content-Length", "0")])
        self.assertEqual(pair.request.all("content-length"), [])

    async def test_no_websocket(self) -> None:
        """HTTP/1.0, h2c, a POST or a missing `Connection` make a plain request."""

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                fields = [name for name, _ in request.headers if name.lower() == "upgrade"]
                respond(stream, 200, f"{request.method} {fields}".encode())

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        h2c = [("Upgrade", "h2c"), ("Connection", "Upgrade"), HANDSHAKE_KEY, VERSION]
        for data, method in (
            (handshake(line="GET /v1/realtime HTTP/1.0"), "GET"),
            (handshake(h2c), "GET"),
            (handshake([("Upgrade", "websocket"), HANDSHAKE_KEY, VERSION]), "GET"),
            (handshake([*HANDSHAKE, ("Content-Length", "0")], line="POST /v1/realtime HTTP/1.1"), "POST"),
        ):
            response = await self.refused(port, data)
            self.assertEqual((response.status, response.body), (200, f"{method} []".encode()))
        self.assertEqual(self.relays, [])
