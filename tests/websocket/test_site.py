"""Sessions among other requests, behind TLS, and in the log."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from unittest import mock

import trustme
from twisted.internet.defer import Deferred
from twisted.internet.ssl import PrivateCertificate
from twisted.logger import globalLogPublisher

from stream_proxy.request_log import RequestLog
from tests.support.loopback import Upstream, reactor
from tests.support.sessions import (
    BINARY,
    CLOSE,
    GOING_AWAY,
    HANDSHAKE,
    KEY,
    PING,
    TEXT,
    Frame,
    WebSocketTestCase,
    accepted,
    close_frame,
    frame,
    handshake,
    read_frame,
)
from tests.support.wire import Stream, read_head, read_request, read_response, respond


class SiteTests(WebSocketTestCase):
    """Sessions among plain requests, and in other sites."""

    async def test_http_beside_a_session(self) -> None:
        """Plain requests on the same port do not disturb an open session."""

        async def script(stream: Stream) -> None:
            request = await read_request(stream)
            if request.get("upgrade"):
                stream.write(accepted(request))
                stream.write(frame(TEXT, (await read_frame(stream)).payload))
            else:
                respond(stream, 200, b"plain")

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        client = await self.client(port)
        client.write(handshake())
        self.assertEqual((await read_head(client)).status, 101)
        self.assertEqual((await self.request(port, "GET", "/v1/models")).body, b"plain")
        client.write(frame(TEXT, b"still here", key=KEY))
        self.assertEqual(await read_frame(client), Frame(TEXT, b"still here"))

    async def test_after_other_requests(self) -> None:
        """A connection that served plain requests can become a WebSocket."""

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                if request.get("upgrade"):
                    stream.write(accepted(request) + frame(TEXT, b"hello"))
                    return
                respond(stream, 200, b"plain")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(handshake(()))
        self.assertEqual((await read_response(client, "GET")).body, b"plain")
        client.write(handshake())
        self.assertEqual((await read_head(client)).status, 101)
        self.assertEqual(await read_frame(client), Frame(TEXT, b"hello"))

    async def test_plain_site(self) -> None:
        """The resource relays WebSockets in Twisted's own site, too."""
        upstream, came = await self.accepting(lambda request: accepted(request) + frame(TEXT, b"early"))
        pipelined = frame(TEXT, b"with the handshake", key=KEY)
        pair = await self.join(await self.plain_site(upstream), came, handshake() + pipelined)
        self.assertEqual(await pair.server.exactly(len(pipelined)), pipelined)
        self.assertEqual(await read_frame(pair.client), Frame(TEXT, b"early"))
        await self.assert_passes(pair.client, pair.server, frame(BINARY, bytes(100_000), key=KEY))
        await self.assert_passes(pair.server, pair.client, close_frame(1000))
        pair.client.write(close_frame(1000, client=True))
        self.assertEqual(await pair.client.rest(), b"")
        pair.server.close()
        await self.ended()


class TLSTests(WebSocketTestCase):
    """An upstream behind TLS."""

    async def secure(self, name: str, script: Callable[[Stream], Any]) -> int:
        """Start a TLS upstream with a certificate for `name`, and a proxy, whose port is returned."""
        authority = trustme.CA()
        issued = authority.issue_cert(name)
        path = self.mktemp()
        authority.cert_pem.write_to_path(path)
        trusting = mock.patch.dict(os.environ, {"SSL_CERT_FILE": path})
        trusting.start()
        self.addCleanup(trusting.stop)
        upstream = Upstream(script)
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        options = PrivateCertificate.loadPEM(issued.private_key_pem.bytes() + chain).options()
        port = reactor.listenSSL(0, upstream.factory(), options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)

        def drop() -> None:
            for stream in upstream.connections:
                if stream.lost is None:
                    stream.abort()

        self.addCleanup(drop)
        return await self.proxy(f"https://localhost:{port.getHost().port}")

    async def test_session(self) -> None:
        """Frames, long ones too, and the close frame are forwarded both ways."""
        big = os.urandom(300_000)

        async def script(stream: Stream) -> None:
            stream.write(accepted(await read_head(stream)) + frame(TEXT, b"early"))
            stream.write(frame(BINARY, (await read_frame(stream)).payload))
            await read_frame(stream)
            stream.write(close_frame(1000))
            stream.close()

        client = await self.client(await self.secure("localhost", script))
        client.write(handshake() + frame(BINARY, big, key=KEY))
        self.assertEqual((await read_head(client)).status, 101)
        self.assertEqual(await read_frame(client), Frame(TEXT, b"early"))
        self.assertEqual((await read_frame(client)).payload, big)
        client.write(close_frame(1000, client=True))
        self.assertEqual(await client.rest(), close_frame(1000))
        await self.ended()

    async def test_client_vanishes(self) -> None:
        """The upstream is sent a close frame when the client vanishes."""
        heard: Deferred[Frame] = Deferred()

        async def script(stream: Stream) -> None:
            stream.write(accepted(await read_head(stream)))
            heard.callback(await read_frame(stream))
            stream.close()

        client = await self.client(await self.secure("localhost", script))
        client.write(handshake())
        await read_head(client)
        client.abort()
        self.assertEqual(await heard, Frame(CLOSE, GOING_AWAY.payload, masked=True))
        await self.ended()

    async def test_wrong_name(self) -> None:
        """A certificate for another name gets a 502 that explains it."""

        async def script(stream: Stream) -> None:
            await stream.rest()

        port = await self.secure("elsewhere.example", script)
        self.assert_error(await self.refused(port), 502, "upstream_error", "not for the name localhost")


class LogTests(WebSocketTestCase):
    """One log line for each session, without secrets."""

    async def test_line(self) -> None:
        """The line has path, status, close code and traffic; no query, subprotocol, cookie or payload."""
        events: list[Any] = []
        everything: list[Any] = []
        observer = cast(Any, everything.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        fields = [
            ("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.secret"),
            ("Authorization", "Bearer secret"),
            ("Cookie", "secret"),
        ]
        answer = [("Sec-WebSocket-Protocol", "realtime"), ("Set-Cookie", "secret")]
        pair = await self.open(
            fields,
            target="/v1/realtime?key=secret",
            answer=lambda request: accepted(request, answer),
            log=RequestLog("debug", observer=cast(Any, events.append)),
        )
        await self.assert_passes(
            pair.client, pair.server, frame(TEXT, b"secret", key=KEY), frame(PING, key=KEY)
        )
        await self.assert_passes(pair.server, pair.client, frame(TEXT, b"secret") * 2)
        await self.assert_passes(pair.client, pair.server, close_frame(4000, "secret", client=True))
        await self.assert_passes(pair.server, pair.client, close_frame(1000))
        pair.server.close()
        await self.ended()
        _, event, _ = events
        line = event["log_format"].format(**event)
        self.assertRegex(
            line,
            r"^GET /v1/realtime 101 websocket http://127\.0\.0\.1:\d+ 20 bytes \d+ ms, "
            r"close 4000, 1 messages 32 bytes up, 2 messages 20 bytes down \|",
        )
        self.assertNotIn("secret", repr(events) + repr(everything))

    async def test_refused_secrets(self) -> None:
        """A subprotocol that was offered twice, or chosen without an offer, is not logged."""
        secret = "openai-insecure-api-key.secret"
        for offer, choice in ((secret, "other"), (f"{secret}, {secret}", secret), ("realtime", secret)):
            events: list[Any] = []
            upstream, _ = await self.accepting(
                partial(accepted, headers=[("Sec-WebSocket-Protocol", choice)])
            )
            port = await self.proxy(upstream.url, log=RequestLog("debug", observer=cast(Any, events.append)))
            fields = [*HANDSHAKE, ("Sec-WebSocket-Protocol", offer)]
            response = await self.refused(port, handshake(fields))
            self.assertIn(response.status, (400, 502))
            self.assertEqual(len(events), 3)  # its head, the line and its steps
            self.assertNotIn("secret", repr(events))
            self.assertNotIn(b"secret", response.body)
