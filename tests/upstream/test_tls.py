"""Tests of TLS to the upstream: certificates that are accepted, and the errors for others."""

from __future__ import annotations

import datetime

import trustme

from stream_proxy.upstream.tls import CertificateError
from tests.support.certificates import CA, server_context, trust
from tests.support.loopback import LoopbackTestCase
from tests.support.wire import Message, Stream, read_request, respond


class TLSTests(LoopbackTestCase):
    """Certificates, checked against the system's authorities and for the upstream's name."""

    def setUp(self) -> None:
        """Let the system trust one authority."""
        trust(self)
        self.requests: list[Message] = []

    async def asked(self, *names: str, host: str = "127.0.0.1", **certificate: object) -> Message:
        """Return the response of a proxy whose upstream at `host` has a certificate for `names`."""

        async def script(stream: Stream) -> None:
            self.requests.append(await read_request(stream))
            respond(stream, 200, b"ok")
            await stream.rest()

        upstream = await self.upstream(script, server_context(*names, **certificate))  # type: ignore[arg-type]
        self.port = upstream.port
        return await self.request(await self.proxy(f"https://{host}:{upstream.port}"), "GET", "/v1/x")

    def assert_refused(self, answer: Message, *words: str) -> None:
        """Check the 502 and its cause, and that no request left the proxy."""
        self.assertEqual(answer.status, 502, answer.body)
        error = answer.json()["error"]
        self.assertEqual(error["type"], "upstream_error")
        for word in ("TLS to https://", str(self.port), *words):
            self.assertIn(word, error["message"])
        self.assertEqual(self.requests, [])

    async def test_trusted(self) -> None:
        """An authority that ``SSL_CERT_FILE`` names is trusted, for addresses and for names."""
        for host in ("127.0.0.1", "localhost"):
            answer = await self.asked(host, host=host)
            self.assertEqual((answer.status, answer.body), (200, b"ok"))
            self.assertEqual(self.requests[-1].get("host"), f"{host}:{self.port}")

    async def test_wrong_name(self) -> None:
        """A certificate for another name."""
        self.assert_refused(await self.asked("other.example", host="localhost"), "not for the name localhost")

    async def test_wrong_address(self) -> None:
        """A certificate for another address, and one for a name where an address was asked for."""
        self.assert_refused(await self.asked("127.0.0.2"), "not for the name 127.0.0.1")
        self.assert_refused(await self.asked("localhost"), "not for the name 127.0.0.1")

    async def test_expired(self) -> None:
        """A certificate that has expired."""
        self.assert_refused(await self.asked("127.0.0.1", expired=True), "has expired")

    async def test_not_yet_valid(self) -> None:
        """A certificate that is not yet valid."""
        begins = datetime.datetime.now() + datetime.timedelta(days=3)
        self.assert_refused(await self.asked("127.0.0.1", begins=begins), "not yet valid")

    async def test_unknown_authority(self) -> None:
        """A certificate of an unknown authority."""
        answer = await self.asked("127.0.0.1", ca=trustme.CA())
        self.assert_refused(answer, "authority that is not trusted")

    async def test_unknown_intermediate(self) -> None:
        """A certificate of an intermediate authority that is missing."""
        answer = await self.asked("127.0.0.1", ca=trustme.CA().create_child_ca())
        self.assert_refused(answer, "is not trusted")

    async def test_trusted_intermediate(self) -> None:
        """A certificate of an intermediate authority that the server sends along."""
        self.assertEqual((await self.asked("127.0.0.1", ca=CA.create_child_ca())).status, 200)

    async def test_self_signed(self) -> None:
        """A self-signed certificate."""
        self.assert_refused(await self.asked("127.0.0.1", self_signed=True), "self-signed")

    async def test_plain_server(self) -> None:
        """A server without TLS behind an https URL."""

        async def script(stream: Stream) -> None:
            await stream.some()
            stream.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            stream.close()

        upstream = await self.upstream(script)
        self.port = upstream.port
        answer = await self.request(
            await self.proxy(f"https://127.0.0.1:{upstream.port}"), "POST", "/v1/x", b"secret"
        )
        self.assert_refused(answer)
        self.assertIn("wrong version number", answer.json()["error"]["message"])
        self.assertIn("so use http:// in upstreamUrl", answer.json()["error"]["message"])

    async def test_closed_in_the_handshake(self) -> None:
        """A server that hangs up in the handshake."""

        async def script(stream: Stream) -> None:
            await stream.some()
            stream.close()

        upstream = await self.upstream(script)
        answer = await self.request(await self.proxy(f"https://127.0.0.1:{upstream.port}"), "GET", "/v1/x")
        self.assertEqual(answer.status, 502)
        self.assertIn("closed the connection", answer.json()["error"]["message"])

    async def test_reuse(self) -> None:
        """A connection is reused over TLS, too."""

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                respond(stream, 200, b"ok")

        upstream = await self.upstream(script, server_context("127.0.0.1"))
        port = await self.proxy(upstream.url)
        for _ in range(3):
            self.assertEqual((await self.request(port, "GET", "/v1/x")).status, 200)
        self.assertEqual(len(upstream.connections), 1)

    def test_text(self) -> None:
        """The error's text follows "TLS failed:"."""
        self.assertEqual(str(CertificateError("its certificate has expired")), "its certificate has expired")
