"""Tests of upstreams behind an egress proxy, with real proxies and real TLS in their tunnels."""

from __future__ import annotations

import base64
import os
import socket
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError
from stream_proxy.http.url import parse_upstream_url
from stream_proxy.upstream.client import Upstream
from stream_proxy.upstream.route import Route
from stream_proxy.upstream.slots import Occupant
from tests.support.certificates import server_context, trust
from tests.support.loopback import LoopbackTestCase, Script, reactor
from tests.support.payloads import CHAT, CHAT_BODY, HELLO
from tests.support.sessions import accepted, handshake
from tests.support.wire import (
    Message,
    Stream,
    event_stream_head,
    read_head,
    read_request,
    read_response,
    respond,
    send_request,
)

SECRET = "s3cr3t-Passw0rd"
HOST = "api.example"
OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"


async def pump(source: Stream, sink: Stream) -> None:
    """Copy until the source ends, then close the sink."""
    try:
        while True:
            sink.write(await source.some())
    except EOFError:
        sink.close()


class Occupying(Occupant, Stream):
    """Connection that occupies a slot."""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.is_gone = True
        self.vacate()
        super().connectionLost(reason)


class TunnelTestCase(LoopbackTestCase):
    """Tests with an egress proxy in front of an upstream that only it can resolve."""

    def setUp(self) -> None:
        """Let the system trust one authority, and the environment name no proxy."""
        trust(self)
        clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        patched = mock.patch.dict(os.environ, clean, clear=True)
        patched.start()
        self.addCleanup(patched.stop)
        #: The CONNECTs and other requests that the proxy has seen.
        self.asked: list[Message] = []
        #: Where its tunnels end.
        self.target = 0

    async def tunnel(self, stream: Stream, answer: bytes = OPEN) -> None:
        """Serve as the proxy: read a CONNECT, connect, copy."""
        self.asked.append(await read_head(stream))
        beyond = await self.client(self.target)
        stream.write(answer)
        Deferred.fromCoroutine(pump(beyond, stream))
        await pump(stream, beyond)

    async def behind(self, script: Script, tls: bool = True, *, proxy_tls: Any = None) -> str:
        """Start an upstream and an egress proxy before it, and return the proxy's URL."""
        self.server = await self.upstream(script, server_context(HOST) if tls else None)
        self.target = self.server.port
        self.egress = await self.upstream(self.tunnel, proxy_tls)
        return self.egress.url

    async def answered(self, stream: Stream) -> None:
        """Serve as the upstream: respond with the request."""
        while True:
            request = await read_request(stream)
            self.requests.append(request)
            respond(stream, 200, request.target.encode() + b"|" + request.body)

    requests: list[Message]

    async def ask(self, route: Route | None, url: str = f"https://{HOST}", **kwargs: Any) -> Message:
        """Return the response to one request through the proxy under test."""
        port = await self.proxy(url, route=route, **kwargs)
        return await self.request(port, "POST", "/v1/x?y", b"up")

    def assert_error(self, answer: Message, code: ErrorCode, *words: str) -> None:
        """Check that `answer` is this error, and that its message holds these words and no secret."""
        self.assertEqual(answer.status, code.status, answer.body)
        error = answer.json()["error"]
        self.assertEqual((error["type"], error["code"]), (code.type, code.code))
        for word in words:
            self.assertIn(word, answer.json()["error"]["message"])
        self.assertNotIn(SECRET.encode(), answer.body)


class ConnectTests(TunnelTestCase):
    """https upstreams, reached with CONNECT and TLS from end to end."""

    def setUp(self) -> None:
        """Start with no requests."""
        super().setUp()
        self.requests = []

    async def test_relay(self) -> None:
        """A request reaches the upstream in a tunnel, with the same head and body as without one."""
        proxy = await self.behind(self.answered)
        answer = await self.ask(Route(proxy), f"https://{HOST}/prefix")
        self.assertEqual((answer.status, answer.body), (200, b"/prefix/v1/x?y|up"))
        (connect,) = self.asked
        self.assertEqual(connect.line, f"CONNECT {HOST}:443 HTTP/1.1")
        self.assertEqual(connect.headers, [("Host", f"{HOST}:443")])
        self.assertEqual(self.requests[0].get("host"), HOST)
        self.assertIsNone(self.requests[0].get("proxy-authorization"))

    async def test_reuse(self) -> None:
        """A tunnel is reused."""
        proxy = await self.behind(self.answered)
        port = await self.proxy(f"https://{HOST}", route=Route(proxy))
        for _ in range(3):
            self.assertEqual((await self.request(port, "GET", "/v1/x")).status, 200)
        self.assertEqual((len(self.asked), len(self.requests)), (1, 3))

    async def test_converted(self) -> None:
        """A converted call works through a tunnel."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(HELLO)
            stream.chunk(b"")

        proxy = await self.behind(script)
        port = await self.proxy(f"https://{HOST}", route=Route(proxy))
        answer = await self.request(port, body=CHAT_BODY)
        self.assertEqual(answer.json()["choices"][0]["message"]["content"], "Hello")

    async def test_credentials(self) -> None:
        """The proxy gets its credentials, and the client's own Proxy-Authorization is dropped."""
        proxy = (await self.behind(self.answered)).replace("://", f"://user:{SECRET}@")
        port = await self.proxy(f"https://{HOST}", route=Route(proxy))
        stream = await self.client(port)
        send_request(stream, "GET", CHAT, headers=[("Proxy-Authorization", "Basic Y2xpZW50")])
        self.assertEqual((await read_response(stream)).status, 200)
        encoded = base64.b64encode(f"user:{SECRET}".encode()).decode()
        self.assertEqual(self.asked[0].all("proxy-authorization"), [f"Basic {encoded}"])
        self.assertEqual(self.requests[0].all("proxy-authorization"), [])

    async def test_environment(self) -> None:
        """The environment's proxy is used where the rule names none, and ``direct`` turns it off."""
        proxy = await self.behind(self.answered)
        with mock.patch.dict(os.environ, {"HTTPS_PROXY": proxy}):
            self.assertEqual((await self.ask(None)).status, 200)
            direct = Upstream(reactor, parse_upstream_url(f"https://{HOST}"), route=Route("direct"))
        self.assertEqual(len(self.asked), 1)
        self.assertIsNone(direct._connections.route.peer.proxy)

    async def test_loopback(self) -> None:
        """An upstream on this machine is reached directly, whatever the settings."""
        proxy = await self.behind(self.answered, tls=False)
        with mock.patch.dict(os.environ, {"HTTP_PROXY": proxy}):
            for host in ("127.0.0.1", "localhost"):
                url = f"http://{host}:{self.server.port}"
                for route in (None, Route(proxy)):
                    self.assertEqual((await self.ask(route, url)).status, 200)
        self.assertEqual(self.asked, [])

    async def test_certificate(self) -> None:
        """The upstream's certificate is checked within the tunnel, for the upstream's name."""
        proxy = await self.behind(self.answered)
        answer = await self.ask(Route(proxy), "https://other.example")
        self.assert_error(
            answer,
            ErrorCode.UPSTREAM_TLS,
            "TLS to https://other.example failed",
            "not for the name other.example",
        )
        self.assertEqual(self.requests, [])

    async def test_tls_to_the_proxy(self) -> None:
        """A proxy may speak TLS itself."""
        proxy = await self.behind(self.answered, proxy_tls=server_context("127.0.0.1"))
        self.assertEqual((await self.ask(Route(proxy))).body, b"/v1/x?y|up")
        self.assertEqual(len(self.asked), 1)

    async def test_bad_certificate_of_the_proxy(self) -> None:
        """A proxy whose certificate is not trusted gets no request."""
        proxy = await self.behind(self.answered, proxy_tls=server_context("127.0.0.1", self_signed=True))
        answer = await self.ask(Route(proxy))
        self.assert_error(
            answer,
            ErrorCode.EGRESS_FAILED,
            f"TLS to the proxy https://127.0.0.1:{self.egress.port}",
            "self-signed",
        )
        self.assertEqual(self.asked, [])

    async def test_ipv6(self) -> None:
        """The address of an IPv6 upstream is in brackets."""
        proxy = await self.behind(self.answered)
        answer = await self.ask(Route(proxy), "https://[2001:db8::1]:8443")
        self.assertEqual(self.asked[0].line, "CONNECT [2001:db8::1]:8443 HTTP/1.1")
        self.assert_error(answer, ErrorCode.UPSTREAM_TLS, "not for the name 2001:db8::1")

    async def test_answer_in_pieces(self) -> None:
        """The proxy's response may be split, spelled and continued in any way."""
        for answer in (
            b"HTTP/1.0 200 OK\r\nProxy-Agent: x\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 200\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\n\r\n",
            b"HTTP/1.1 200 OK\nX: y\n\n",
        ):

            async def bytewise(stream: Stream, answer: bytes = answer) -> None:
                stream.transport.setTcpNoDelay(True)
                for byte in answer[:-1]:
                    stream.write(bytes([byte]))
                await self.tunnel(stream, answer[-1:])

            self.requests = []
            await self.behind(self.answered)
            egress = await self.upstream(bytewise)
            self.assertEqual((await self.ask(Route(egress.url))).status, 200, answer)

    async def test_bytes_behind_the_answer(self) -> None:
        """Bytes behind the proxy's response, in one piece with it, belong to the tunnel."""

        async def script(stream: Stream) -> None:
            await read_head(stream)
            stream.write(OPEN + b"first words")
            await stream.rest()

        egress = await self.upstream(script)
        upstream = Upstream(reactor, parse_upstream_url("http://api.example"), route=Route(egress.url))
        started: list[None] = []
        stream = await upstream.connect(Factory.forProtocol(Occupying), lambda: started.append(None))
        self.assertEqual(await stream.until(b"words"), b"first words")
        self.assertEqual(started, [None])
        self.assertEqual(upstream._connections.slots.in_use, 1)
        stream.close()
        await stream.gone()
        self.assertEqual(upstream._connections.slots.in_use, 0)


class AbsoluteFormTests(TunnelTestCase):
    """http upstreams, whose requests the proxy reads itself (RFC 9112 section 3.2.2)."""

    async def proxied(self, status: int = 200, **fields: str) -> tuple[Message, Message]:
        """Return the request that the proxy got, and the client's response."""

        async def script(stream: Stream) -> None:
            self.asked.append(await read_request(stream))
            respond(stream, status, b"body", fields.items())
            await stream.rest()

        self.egress = await self.upstream(script)
        url = self.egress.url.replace("://", f"://user:{SECRET}@")
        answer = await self.ask(Route(url), "http://api.example:8000/prefix")
        return self.asked[-1], answer

    async def test_request(self) -> None:
        """The target is absolute, the Host is the upstream's, and the credentials are sent."""
        asked, answer = await self.proxied()
        self.assertEqual(asked.line, "POST http://api.example:8000/prefix/v1/x?y HTTP/1.1")
        self.assertEqual((asked.get("host"), asked.body), ("api.example:8000", b"up"))
        encoded = base64.b64encode(f"user:{SECRET}".encode()).decode()
        self.assertEqual(asked.all("proxy-authorization"), [f"Basic {encoded}"])
        self.assertEqual((answer.status, answer.body), (200, b"body"))

    async def test_answers(self) -> None:
        """An error may be the upstream's, and is relayed."""
        for status in (403, 502):
            _, answer = await self.proxied(status)
            self.assertEqual((answer.status, answer.body), (status, b"body"))

    async def test_wrong_credentials(self) -> None:
        """A 407 becomes a 502, since the client cannot send the proxy's credentials."""
        _, answer = await self.proxied(407, **{"Proxy-Authenticate": "Basic"})
        self.assert_error(
            answer,
            ErrorCode.EGRESS_REFUSED,
            f"The proxy http://127.0.0.1:{self.egress.port} wants",
            "407",
            "proxy",
        )
        self.assertIsNone(answer.get("proxy-authenticate"))

    async def test_refused(self) -> None:
        """A proxy that does not listen."""
        answer = await self.ask(Route(f"http://127.0.0.1:{_nobody(self)}"), "http://api.example")
        self.assert_error(
            answer,
            ErrorCode.EGRESS_FAILED,
            "The proxy http://127.0.0.1:",
            "refused the connection; check proxy",
        )


class WebSocketTests(TunnelTestCase):
    """WebSockets, which need a tunnel over http as well."""

    async def test_both(self) -> None:
        """Handshakes and frames pass through the tunnel."""

        async def script(stream: Stream) -> None:
            stream.write(accepted(await read_head(stream)))
            stream.write(await stream.exactly(8))
            await stream.rest()

        for scheme, port in (("https", 443), ("http", 80)):
            proxy = await self.behind(script, tls=scheme == "https")
            url = proxy.replace("://", f"://user:{SECRET}@")
            client = await self.client(await self.proxy(f"{scheme}://{HOST}", route=Route(url)))
            client.write(handshake())
            self.assertEqual((await read_head(client)).status, 101)
            client.write(b"\x82\x82abcd\x00\x00")
            self.assertEqual(await client.exactly(8), b"\x82\x82abcd\x00\x00")
            self.assertEqual(self.asked[-1].line, f"CONNECT {HOST}:{port} HTTP/1.1")
            self.assertEqual(len(self.asked[-1].all("proxy-authorization")), 1)

    async def test_refused(self) -> None:
        """A proxy that refuses the tunnel makes a 502."""

        async def script(stream: Stream) -> None:
            await read_head(stream)
            respond(stream, 407, b"")
            await stream.rest()

        egress = await self.upstream(script)
        client = await self.client(await self.proxy(f"http://{HOST}", route=Route(egress.url)))
        client.write(handshake())
        self.assert_error(
            await read_response(client), ErrorCode.EGRESS_REFUSED, "wants other credentials (407)"
        )
        await egress.connections[0].gone()


class FailureTests(TunnelTestCase):
    """Failures on the way, each a 502 or 504 that names the proxy, and never its password."""

    async def failing(self, script: Script, code: ErrorCode, *words: str) -> None:
        """Check the error for a proxy with this script, whose connection is dropped."""
        egress = await self.upstream(script)
        route = Route(egress.url.replace("://", f"://user:{SECRET}@"))
        self.assert_error(await self.ask(route), code, f"he proxy http://127.0.0.1:{egress.port}", *words)
        for connection in egress.connections:
            await connection.gone()
        self.assertEqual(len(egress.connections), 1)

    async def test_not_there(self) -> None:
        """The error for a proxy that does not listen names its setting, the rule's or the environment's."""
        url = f"http://user:{SECRET}@127.0.0.1:{_nobody(self)}"
        self.assert_error(
            await self.ask(Route(url)),
            ErrorCode.EGRESS_FAILED,
            "refused the connection; check proxy and that it",
        )
        with mock.patch.dict(os.environ, {"HTTPS_PROXY": url}):
            self.assert_error(
                await self.ask(None), ErrorCode.EGRESS_FAILED, "check HTTPS_PROXY and that it runs"
            )

    async def test_other_protocols(self) -> None:
        """A proxy that speaks TLS or HTTP/2 where neither was expected."""
        for data, words in (
            (b"\x15\x03\x01\x00\x02\x02\x46", "speaks TLS; use https:// in proxy."),
            (b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", "speaks HTTP/2"),
        ):

            async def script(stream: Stream, data: bytes = data) -> None:
                await read_head(stream)
                stream.write(data)
                await stream.rest()

            await self.failing(script, ErrorCode.EGRESS_FAILED, words)

    async def test_statuses(self) -> None:
        """Statuses of a proxy that refuses the tunnel."""
        for code, words in (
            (407, "wants other credentials (407); check the user in proxy."),
            (403, "refused a tunnel to https://api.example (403); check proxy"),
            (400, "(400)"),
            (302, "(302)"),
            (502, "could not reach https://api.example (502)."),
            (503, "could not reach https://api.example (503)."),
            (504, "could not reach https://api.example (504)."),
        ):

            async def script(stream: Stream, code: int = code) -> None:
                await read_head(stream)
                respond(stream, code, b"<html>" + SECRET.encode())
                await stream.rest()

            await self.failing(script, ErrorCode.EGRESS_REFUSED, words)

    async def test_closed(self) -> None:
        """A proxy that closes the connection before its response, or within it."""
        for answer in (b"", b"HTTP/1.1 200 Conn"):

            async def script(stream: Stream, answer: bytes = answer) -> None:
                await read_head(stream)
                stream.write(answer)
                stream.close()

            await self.failing(
                script, ErrorCode.EGRESS_FAILED, "closed the connection before its answer was complete"
            )

    async def test_garbage(self) -> None:
        """A proxy that speaks another protocol, or whose head does not end."""
        for answer, words in (
            (b"SSH-2.0-OpenSSH\r\n\r\n", "invalid HTTP response"),
            (b"\r\n\r\n", "invalid HTTP response"),
            (b"HTTP/1.1 2OO OK\r\n\r\n", "invalid HTTP response"),
            (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 17_000, "head that is too large"),
            (b"HTTP/1.1 100 Go on\r\n\r\n" * 1000, "head that is too large"),
        ):

            async def script(stream: Stream, answer: bytes = answer) -> None:
                await read_head(stream)
                stream.write(answer)
                await stream.rest()

            await self.failing(script, ErrorCode.EGRESS_FAILED, words)

    async def held(self, secure: bool) -> tuple[Upstream, Any, Deferred[None]]:
        """An upstream whose proxy never answers, or whose TLS never ends."""
        there: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await read_head(stream)
            if secure:
                stream.write(OPEN)
                await stream.some()
            there.callback(None)
            await stream.rest()

        egress = await self.upstream(script)
        upstream = Upstream(reactor, parse_upstream_url(f"https://{HOST}"), route=Route(egress.url))
        return upstream, egress, there

    async def test_connect_seconds(self) -> None:
        """CONNECT, and TLS within the tunnel, count towards ``connectSeconds``."""
        for secure in (False, True):
            upstream, egress, there = await self.held(secure)
            clock = upstream._connections.clock = Clock()
            asking = upstream.request(b"GET", b"/", [], None)
            await there
            clock.advance(9.9)
            self.assertNoResult(asking)
            clock.advance(0.1)
            error = self.failureResultOf(asking, APIError).value
            self.assertEqual(error.status, 504)
            self.assertIn(f"{HOST} could not be reached through the proxy {egress.url}", error.message)
            await egress.connections[0].gone()
            self.assertEqual((clock.getDelayedCalls(), upstream._connections.slots.in_use), ([], 0))

    async def test_cancelled(self) -> None:
        """A request that is cancelled on the way leaves nothing behind."""
        for secure in (False, True):
            upstream, egress, there = await self.held(secure)
            asking = upstream.request(b"GET", b"/", [], None)
            await there
            asking.cancel()
            self.failureResultOf(asking, CancelledError)
            await egress.connections[0].gone()
            self.assertEqual(upstream._connections.slots.in_use, 0)


def _nobody(test: LoopbackTestCase) -> int:
    """Return a port that refuses connections until the end of the test."""
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    test.addCleanup(probe.close)
    return int(probe.getsockname()[1])
