"""Tests of the hosts and origins from which browsers may spend an operator's key."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.errors import APIError, ConfigError
from stream_proxy.http.access import Access
from stream_proxy.http.headers import RawHeader
from stream_proxy.http.origin import Pages
from stream_proxy.service.configuration.loading import parse_config
from tests.support.payloads import CHAT, CHAT_BODY, HELLO
from tests.support.sessions import HANDSHAKE, WebSocketTestCase, accepted
from tests.support.wire import (
    JSON,
    Headers,
    Message,
    Stream,
    event_stream_head,
    read_request,
    read_response,
    respond,
)

OWN = b"sk-own"
CLIENT = "client-key"
EVIL = "https://evil.example"


def raw(*fields: tuple[str, str]) -> list[RawHeader]:
    """Return header fields as bytes."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


def judged(pages: Pages, origin: str | None, host: str = "localhost:8080", site: str | None = None) -> bool:
    """Report whether a request with these fields may pass."""
    fields = [("Host", host)]
    if origin is not None:
        fields.append(("Origin", origin))
    if site is not None:
        fields.append(("Sec-Fetch-Site", site))
    return pages.refusal(raw(*fields)) is None


class HostTests(SynchronousTestCase):
    """Names by which the proxy may be called: the defence against DNS rebinding."""

    def test_own(self) -> None:
        """Addresses and localhost need no configuration, whatever the port: no DNS name stands for them."""
        for host in (
            "localhost",
            "LocalHost:8080",
            "localhost.:8080",
            "127.0.0.1",
            "127.8.9.1:80",
            "0.0.0.0:8080",
            "192.168.1.5:8080",
            "[::1]:8080",
            "[::]",
            "[fe80::1]",
            "[::ffff:127.0.0.1]:1",
        ):
            self.assertTrue(judged(Pages(), None, host), host)

    def test_foreign(self) -> None:
        """Every other name may be a page's own, also one that contains an allowed name or address."""
        pages = Pages(["api.example"])
        for host in (
            "rebind.evil.example:8080",
            "localhost.evil.example",
            "evil-localhost",
            "localhost:8080.evil.example",
            "127.0.0.1.nip.io",
            "127-0-0-1.evil.example",
            "127.0.0.1x",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "x.api.example",
            "api.example.evil.example",
            "user@localhost",
            "evil.example#localhost",
            "",
        ):
            self.assertFalse(judged(pages, None, host), host)

    def test_named(self) -> None:
        """A name in "hosts" is the proxy's, in any case and with any port."""
        pages = Pages(["Api.Example"])
        self.assertTrue(judged(pages, None, "api.EXAMPLE:8443"))
        self.assertTrue(judged(pages, "https://api.example:8443", "api.example:8443"))

    def test_each(self) -> None:
        """A second field does not hide behind the first."""
        self.assertIsNotNone(Pages().refusal(raw(("Host", "localhost"), ("Host", "evil.example"))))

    def test_none(self) -> None:
        """A request of HTTP/1.0 without the field comes from no browser; with an Origin it does."""
        self.assertIsNone(Pages().refusal([]))
        self.assertIsNotNone(Pages().refusal(raw(("Origin", EVIL))))

    @given(st.from_regex(r"[a-z][a-z0-9-]{0,10}(\.[a-z][a-z0-9-]{0,10}){1,3}", fullmatch=True))
    def test_any_name(self, name: str) -> None:
        """No DNS name passes, even if the page's origin is the same."""
        self.assertFalse(judged(Pages(), None, name))
        self.assertFalse(judged(Pages(), f"http://{name}:8080", f"{name}:8080"))


class OriginTests(SynchronousTestCase):
    """Pages that may call."""

    def test_local(self) -> None:
        """Without "origins", pages of this machine may call, on any port."""
        for origin in (
            None,
            "http://localhost",
            "http://localhost:3000",
            "https://LOCALHOST:8443",
            "http://127.0.0.1:5173",
            "http://[::1]:3000",
        ):
            self.assertTrue(judged(Pages(), origin), origin)

    def test_foreign(self) -> None:
        """Everything else is refused, however much it looks like an allowed origin."""
        for origin in (
            EVIL,
            "null",
            "",
            "file://",
            "http://localhost.evil.example",
            "http://localhost:3000.evil.example",
            "http://localhost@evil.example",
            "http://evil.example#localhost",
            "http://evil.example/localhost",
            "http://evil.example\\localhost",
            "http://127.0.0.1.nip.io",
            "http://192.168.1.66:8080",
            "http://0.0.0.0:8080",
            "http://localhost http://evil.example",
            "http://localhost, http://evil.example",
            "ftp://localhost",
            "localhost",
            "//localhost",
            "http:localhost",
            "http://",
            "http://:8080",
            "http://localhost:x",
            "http://localhost:*",
            "http://*",
            "*",
            "chrome-extension://abcdef",
            "http://localh\xf6st",
        ):
            self.assertFalse(judged(Pages(), origin), origin)
            self.assertFalse(judged(Pages(), origin, site="same-origin"), origin)

    def test_same(self) -> None:
        """A page that the same host and port served may call: there, only the proxy itself answers."""
        for origin, host, same in (
            ("http://192.168.1.5:8080", "192.168.1.5:8080", True),
            ("http://192.168.1.5", "192.168.1.5", True),
            ("http://192.168.1.5", "192.168.1.5:80", True),
            ("https://192.168.1.5:443", "192.168.1.5", True),
            ("http://[fe80::1]:8080", "[FE80:0::1]:8080", True),
            ("http://192.168.1.5:8081", "192.168.1.5:8080", False),
            ("http://192.168.1.6:8080", "192.168.1.5:8080", False),
            ("https://192.168.1.5", "192.168.1.5:80", False),
            ("chrome-extension://192.168.1.5", "192.168.1.5", False),
        ):
            self.assertEqual(judged(Pages(), origin, host), same, origin)

    def test_named(self) -> None:
        """The config's origins replace the default: exact ones, any port, any origin of another scheme."""
        pages = Pages(
            (), ["https://app.example", "http://dev.example:*", "chrome-extension://abc", "tauri://*"]
        )
        for origin, allowed in (
            ("https://app.example", True),
            ("https://app.example:443", True),
            ("HTTPS://App.Example", True),
            ("http://app.example", False),
            ("https://app.example:8443", False),
            ("https://x.app.example", False),
            ("http://dev.example", True),
            ("http://dev.example:5173", True),
            ("https://dev.example", False),
            ("chrome-extension://abc", True),
            ("chrome-extension://abcd", False),
            ("moz-extension://abc", False),
            ("tauri://localhost", True),
            ("http://localhost:3000", False),
        ):
            self.assertEqual(judged(pages, origin), allowed, origin)
        self.assertTrue(judged(pages, "http://localhost:8080"))  # Host's own
        self.assertFalse(judged(Pages((), []), "http://localhost:3000"))

    def test_each(self) -> None:
        """Of two origins both have to be allowed."""
        fields = raw(("Host", "localhost"), ("Origin", "http://localhost:1"), ("Origin", EVIL))
        self.assertIsNotNone(Pages().refusal(fields))

    def test_cross_site(self) -> None:
        """A call of another site without an Origin is a page's too: images and links send none."""
        for site, allowed in (
            ("cross-site", False),
            ("same-site", True),
            ("same-origin", True),
            ("none", True),
        ):
            self.assertEqual(judged(Pages(), None, site=site), allowed, site)
        self.assertFalse(judged(Pages(), None, site=" Cross-Site "))
        self.assertTrue(judged(Pages((), ["https://app.example"]), "https://app.example", site="cross-site"))
        self.assertFalse(judged(Pages(), EVIL, site="cross-site"))

    def test_words(self) -> None:
        """The error names what was refused and what to change; the log gets no header's value."""
        for fields, shown, key in (
            (raw(("Host", "rebind.example")), "rebind.example", '"hosts"'),
            (raw(("Host", "localhost"), ("Origin", EVIL)), EVIL, '"origins"'),
            (raw(("Host", "localhost"), ("Sec-Fetch-Site", "cross-site")), "other sites", '"origins"'),
        ):
            error = Pages().refusal(fields)
            assert isinstance(error, APIError)
            self.assertEqual((error.status, error.code), (403, "foreign_origin"))
            self.assertIn(shown, error.message)
            for text in (error.message, error.for_log):
                self.assertIn(key, text)
                self.assertIn("clientKeys", text)
            self.assertNotIn("example", error.for_log)
        opaque = Pages().refusal(raw(("Host", "localhost"), ("Origin", "null")))
        assert opaque is not None
        self.assertNotIn('"origins"', opaque.message)  # which cannot hold it
        self.assertIn("or set clientKeys", opaque.message)
        long = Pages().refusal(raw(("Host", "x" * 10_000)))
        assert long is not None
        self.assertLess(len(long.message), 300)


class ConfigTests(SynchronousTestCase):
    """``"hosts"`` and ``"origins"`` in a rule."""

    def parsed(self, **rule: Any) -> None:
        """Parse a configuration with this rule."""
        whole = {"listenPort": 1, "upstreamUrl": "http://x", **rule}
        self.assertEqual(parse_config(json.dumps({"rules": [whole]}).encode(), "c")[1], [])

    def test_valid(self) -> None:
        """Names, origins and the two wildcards."""
        self.parsed(hosts=["api.example", "my_service"], origins=[])
        self.parsed(
            origins=["https://app.example", "http://localhost:*", "chrome-extension://abc", "app://*"]
        )
        self.parsed(origins=["file://", "http://[::1]:3000"])

    def test_invalid(self) -> None:
        """Each mistake is one line; what would let in every page has no spelling."""
        for host in ("api.example:8080", "https://api.example", "*", "*.example", "a b", "a,b", "[::1]"):
            error = self.assertRaises(ConfigError, self.parsed, hosts=[host])
            text = f"c: rules[0].hosts: {host} must be a host name without scheme and port"
            self.assertEqual(str(error), text)
        self.assertRaises(ConfigError, self.parsed, hosts=[""])
        for origin in (
            "*",
            "null",
            "",
            "app.example",
            "https://",
            "https://app.example/",
            "https://app.example/path",
            "https://*",
            "https://*:*",
            "https://*.example",
            "https://user@app.example",
            "https://app.example:99999",
            "http*://app.example",
        ):
            error = self.assertRaises(ConfigError, self.parsed, origins=[origin])
            self.assertIn("c: rules[0].origins: ", str(error))
            self.assertIn("must be an origin like https://app.example", str(error))
        self.assertRaises(ConfigError, self.parsed, origins="https://app.example")


class RequestTests(WebSocketTestCase):
    """Requests through the proxy and the adapter."""

    async def listening(self, access: Access, **kwargs: Any) -> tuple[int, list[Message]]:
        """Start a proxy, and collect the requests that its upstream gets."""
        asked: list[Message] = []

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                asked.append(request)
                if request.get("upgrade"):
                    stream.write(accepted(request))
                    return
                if request.method == "POST":
                    stream.write(event_stream_head())
                    stream.chunk(HELLO)
                    stream.chunk(b"")
                else:
                    respond(stream, 200, b"{}", [JSON])

        upstream = await self.upstream(script)
        return await self.proxy(upstream.url, access=access, **kwargs), asked

    async def sent(self, port: int, line: str, fields: Headers, body: bytes = b"") -> Message:
        """Send a request with these fields alone."""
        client = await self.client(port)
        head = [f"{line} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        if body:
            head.append(f"Content-Length: {len(body)}")
        client.write("\r\n".join([*head, "", ""]).encode("latin-1") + body)
        response = await read_response(client, line.partition(" ")[0])
        client.abort()
        return response

    def attempts(self) -> list[tuple[str, Headers, bytes]]:
        """Return what a hostile page can have a browser send."""
        page = [("Host", "localhost"), ("Origin", EVIL), ("Sec-Fetch-Site", "cross-site")]
        body = json.dumps({**CHAT_BODY, "model": "gpt-3.5-turbo"}).encode()
        text = ("Content-Type", "text/plain;charset=UTF-8")
        rebound = [("Host", "rebind.evil.example:8080")]
        return [
            ("GET /v1/realtime?model=x", [*page, *HANDSHAKE], b""),
            ("GET /v1/realtime?model=x", [*rebound, *HANDSHAKE], b""),
            (f"POST {CHAT}", [*page, text], body),
            (f"POST {CHAT}", [*page, JSON], body),
            (f"POST {CHAT}", [*rebound, ("Origin", "http://rebind.evil.example:8080"), JSON], body),
            ("POST /v1/files", [("Host", "localhost"), ("Origin", "null"), text], b"data"),
            ("GET /v1/models", rebound, b""),
            ("GET http://rebind.evil.example:8080/v1/models", [("Host", "localhost")], b""),
            ("GET /v1/models", [("Host", "localhost"), ("Sec-Fetch-Site", "cross-site")], b""),
            (f"OPTIONS {CHAT}", [*page, ("Access-Control-Request-Method", "POST")], b""),
        ]

    async def test_refused(self) -> None:
        """Nothing that a hostile page sends goes upstream, and it can read no answer; adapters alike."""
        adapter = AdapterConfig(headers={"Authorization": "Bearer ${HOME}"})

        def facade(url: str, **kwargs: Any) -> AdapterResource:
            return AdapterResource(url, adapter, **kwargs)

        for access, kwargs in (
            (Access((), OWN), {}),
            (Access((), OWN), {"resource": AdapterResource}),
            (Access(), {"resource": facade}),
        ):
            port, asked = await self.listening(access, **kwargs)
            for line, fields, body in self.attempts():
                response = await self.sent(port, line, fields, body)
                self.assert_error(response, 403, "invalid_request_error", "This rule does not answer")
                self.assertEqual(response.json()["error"]["code"], "foreign_origin")
                self.assertIsNone(response.get("access-control-allow-origin"))
            self.assertEqual(asked, [])

    async def test_no_key(self) -> None:
        """Where the client brings the key, the proxy looks at neither; with client keys these decide."""
        for access, status in ((Access(), 200), (Access([CLIENT.encode()], OWN), 401)):
            port, _ = await self.listening(access)
            fields = [("Host", "any.example"), ("Origin", EVIL), ("Sec-Fetch-Site", "cross-site")]
            self.assertEqual((await self.sent(port, "GET /v1/models", fields)).status, status)
        fields.append(("api-key", CLIENT))
        self.assertEqual((await self.sent(port, "GET /v1/models", fields)).status, 200)

    async def test_allowed(self) -> None:
        """Programs, pages of this machine and pages in "origins" are served."""
        access = Access((), OWN, hosts=["proxy.example"], origins=["https://app.example"])
        port, asked = await self.listening(access)
        for fields in (
            [("Host", "localhost")],
            [("Host", "proxy.example"), ("Origin", "https://app.example"), ("Sec-Fetch-Site", "cross-site")],
            [("Host", "proxy.example"), ("Origin", "https://proxy.example")],
        ):
            self.assertEqual((await self.sent(port, "GET /v1/models", fields)).status, 200)
        self.assertEqual(len(asked), 3)

    async def test_adapter_cors(self) -> None:
        """An adapter that spends a key lets only the pages that may call read its answers."""
        port, _ = await self.listening(Access((), OWN), resource=AdapterResource)
        local = ("Origin", "http://localhost:3000")
        preflight = ("Access-Control-Request-Method", "POST")
        for line, fields in (
            ("GET /v1/models", [local]),
            ("GET /v1/none", [local]),
            (f"OPTIONS {CHAT}", [local, preflight]),
        ):
            response = await self.sent(port, line, [("Host", "localhost"), *fields])
            self.assertEqual(response.get("access-control-allow-origin"), local[1], line)
            self.assertIn("Origin", response.all("vary"))
        response = await self.sent(port, "GET /v1/models", [("Host", "localhost")])
        self.assertIsNone(response.get("access-control-allow-origin"))
        self.assertEqual(response.get("vary"), "Origin")
        for access in (Access(), Access([CLIENT.encode()], OWN)):
            port, _ = await self.listening(access, resource=AdapterResource)
            fields = [("Host", "localhost"), ("Origin", EVIL), ("api-key", CLIENT)]
            response = await self.sent(port, "GET /v1/models", fields)
            self.assertEqual((response.status, response.get("access-control-allow-origin")), (200, "*"))


class ErrorTests(WebSocketTestCase):
    """Errors of the proxy's own, which pages can read."""

    async def test_readable(self) -> None:
        """Each has ``Access-Control-Allow-Origin`` for a request with ``Origin``, and only for such a one."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.close()

        upstream = await self.upstream(script)
        access = Access([CLIENT.encode()])
        port = await self.proxy(upstream.url, access=access)
        key = ("api-key", CLIENT)
        for method, target, fields, status in (
            ("GET", "/v1/models", [], 401),
            ("POST", CHAT, [], 401),
            ("GET", "/v1/models", [key], 502),
            ("POST", CHAT, [key], 502),
            ("GET", "nonsense", [key], 400),
            ("GET", "/v1/realtime", [key, *HANDSHAKE], 502),
            ("GET", "/v1/realtime", [key, *HANDSHAKE[:-1]], 400),
        ):
            body = CHAT_BODY if method == "POST" else None
            for origin in ([], [("Origin", EVIL)]):
                response = await self.request(port, method, target, body, [*fields, *origin])
                self.assertEqual(response.status, status, (method, target))
                expected = ["*"] if origin else []
                self.assertEqual(response.all("access-control-allow-origin"), expected, (method, target))

    async def test_connection(self) -> None:
        """So has an error about what is no request yet."""
        upstream = await self.upstream(lambda stream: self.fail("dialled"))
        port = await self.proxy(upstream.url)
        large = [("Host", "localhost"), ("Origin", EVIL), ("Cookie", "x" * 100_000)]
        for fields, status in ((large, 431), ([("Origin", EVIL)], 400)):
            client = await self.client(port)
            lines = ["GET /v1/models HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
            client.write("\r\n".join([*lines, "", ""]).encode())
            response = await read_response(client, "GET")
            self.assertEqual((response.status, response.get("access-control-allow-origin")), (status, "*"))

    async def test_upstream(self) -> None:
        """The upstream's own answer keeps its own fields, and gets none."""
        for fields in ([], [("Access-Control-Allow-Origin", "https://app.example")]):

            async def script(stream: Stream, fields: Headers = fields) -> None:
                await read_request(stream)
                respond(stream, 404, b"{}", [JSON, *fields])

            upstream = await self.upstream(script)
            port = await self.proxy(upstream.url)
            response = await self.request(port, "GET", "/v1/x", None, [("Origin", EVIL)])
            expected = [value for _, value in fields]
            self.assertEqual(response.all("access-control-allow-origin"), expected)


class TraceTests(WebSocketTestCase):
    """Methods whose answer repeats the request."""

    async def test_refused(self) -> None:
        """They are a 405 where a key would be added, in any spelling and for whoever calls."""

        async def script(stream: Stream) -> None:
            await read_request(stream)

        upstream = await self.upstream(script)
        facade = AdapterConfig(headers={"X": "${HOME}"})
        for access, options in (
            (Access((), OWN), {}),
            (Access([CLIENT.encode()], OWN), {}),
            (Access(), {"resource": lambda url, **kwargs: AdapterResource(url, facade, **kwargs)}),
        ):
            port = await self.proxy(upstream.url, access=access, **options)
            for method in ("TRACE", "trace", "TRACK"):
                response = await self.request(port, method, "/v1/models", None, [("api-key", CLIENT)])
                self.assert_error(response, 405, "invalid_request_error", "TRACE is not served")
                self.assertIn("GET", response.get("allow") or "")
        self.assertEqual(upstream.connections, [])

    async def test_relayed(self) -> None:
        """Where the client brings its own key, TRACE passes like any method."""

        async def script(stream: Stream) -> None:
            request = await read_request(stream)
            respond(stream, 200, request.line.encode(), [("Content-Type", "message/http")])

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, access=Access())
        response = await self.request(port, "TRACE", "/v1/models", None)
        self.assertEqual((response.status, response.body), (200, b"TRACE /v1/models HTTP/1.1"))
