"""Tests of rules with authorities and client certificates of their own."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from OpenSSL import SSL, crypto
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.errors import ConfigError
from stream_proxy.service.configuration.loading import parse_config
from stream_proxy.upstream.route import Route
from tests.support.certificates import CA, server_context, trust
from tests.support.loopback import LoopbackTestCase
from tests.support.sessions import accepted, handshake
from tests.support.wire import Message, Stream, read_head, read_request, read_response, respond

OTHER = trustme.CA()
CLIENTS = trustme.CA()
PEM = serialization.Encoding.PEM


def demanding(version: int | None = None) -> Any:
    """Return a server's context that demands a certificate of `CLIENTS`."""
    options = server_context("127.0.0.1")
    context = options.getContext()
    store = context.get_cert_store()
    store.add_cert(crypto.load_certificate(crypto.FILETYPE_PEM, CLIENTS.cert_pem.bytes()))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *args: bool(args[-1]))
    if version is not None:
        context.set_max_proto_version(version)
    return options


class FilesTestCase(SynchronousTestCase):
    """PEM files."""

    def written(self, *parts: bytes) -> str:
        """Return the path of a file that holds these."""
        path = Path(self.mktemp())
        path.write_bytes(b"".join(parts))
        return str(path)


class ClientFiles:
    """Return a client's certificate with its chain, and its key."""

    def __init__(self, directory: Path, ca: trustme.CA = CLIENTS) -> None:
        directory.mkdir()
        issued = ca.create_child_ca().issue_cert("client.example")
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        self.certificate = str(directory / "certificate.pem")
        self.key = str(directory / "key.pem")
        self.both = str(directory / "both.pem")
        Path(self.certificate).write_bytes(chain)
        Path(self.key).write_bytes(issued.private_key_pem.bytes())
        Path(self.both).write_bytes(issued.private_key_pem.bytes() + chain)


class CertificateTests(LoopbackTestCase):
    """Certificates for HTTP and for WebSockets."""

    def setUp(self) -> None:
        """Let the system trust one authority, which is not the clients'."""
        trust(self)
        self.files = ClientFiles(Path(self.mktemp()))

    async def asked(self, route: Route, context: Any, method: str = "GET") -> Message:
        """Return the response to a request over this route."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 200, b"ok")
            await stream.rest()

        upstream = await self.upstream(script, context)
        self.upstream_url = upstream.url
        port = await self.proxy(upstream.url, route=route)
        return await self.request(port, method, "/v1/x", None if method == "GET" else b"up" * 50_000)

    async def opened(self, route: Route, context: Any) -> Message:
        """Return the response to a WebSocket handshake over this route."""

        async def script(stream: Stream) -> None:
            stream.write(accepted(await read_head(stream)))
            await stream.rest()

        upstream = await self.upstream(script, context)
        client = await self.client(await self.proxy(upstream.url, route=route))
        client.write(handshake())
        return await read_response(client, "GET")

    def assert_error(self, answer: Message, *words: str) -> None:
        """Check that `answer` is the 502 for a TLS failure, and that its message holds these words."""
        self.assertEqual(answer.status, 502, answer.body)
        self.assertEqual(answer.json()["error"]["code"], "upstream_tls")
        for word in words:
            self.assertIn(word, answer.json()["error"]["message"])

    async def test_authority(self) -> None:
        """All authorities in ``caFile`` are trusted, and those of the system no longer."""
        path = self.mktemp()
        Path(path).write_bytes(b"# two\n" + CLIENTS.cert_pem.bytes() + OTHER.cert_pem.bytes())
        route = Route(ca_file=path)
        self.assertEqual((await self.asked(route, server_context("127.0.0.1", ca=OTHER))).status, 200)
        self.assertEqual((await self.opened(route, server_context("127.0.0.1", ca=OTHER))).status, 101)
        for answer in (
            await self.asked(route, server_context("127.0.0.1", ca=CA)),
            await self.opened(route, server_context("127.0.0.1", ca=CA)),
        ):
            self.assert_error(answer, "authority that is not trusted")
        answer = await self.asked(route, server_context("127.0.0.2", ca=OTHER))
        self.assert_error(answer, "not for the name 127.0.0.1")

    async def test_certificate(self) -> None:
        """The client certificate and its chain are sent, with the key in the same file or another."""
        for route in (
            Route(certificate_file=self.files.certificate, key_file=self.files.key),
            Route(certificate_file=self.files.both),
        ):
            for version in (None, SSL.TLS1_2_VERSION):
                self.assertEqual((await self.asked(route, demanding(version))).status, 200)
                self.assertEqual((await self.opened(route, demanding(version))).status, 101)

    async def test_not_demanded(self) -> None:
        """A client certificate that no server demands does no harm."""
        route = Route(certificate_file=self.files.both)
        self.assertEqual((await self.asked(route, server_context("127.0.0.1"))).status, 200)

    async def test_missing(self) -> None:
        """A server that demands one, and gets none, makes a 502 that names ``certificateFile``."""
        for version in (None, SSL.TLS1_2_VERSION):
            for answer in (
                await self.asked(Route(), demanding(version)),
                await self.asked(Route(), demanding(version), "POST"),
                await self.opened(Route(), demanding(version)),
            ):
                self.assert_error(answer, "TLS to https://127.0.0.1", "set certificateFile")

    async def test_not_accepted(self) -> None:
        """A server that rejects the client certificate makes such a 502, too."""
        files = ClientFiles(Path(self.mktemp()), OTHER)
        route = Route(certificate_file=files.both)
        for version in (None, SSL.TLS1_2_VERSION):
            for answer in (
                await self.asked(route, demanding(version)),
                await self.opened(route, demanding(version)),
            ):
                self.assert_error(answer, "alert", "accepts the certificate in certificateFile")


class ErrorTests(FilesTestCase):
    """Mistakes, each a line at start-up that names key, file and problem."""

    def setUp(self) -> None:
        """Write a certificate that is in order."""
        self.files = ClientFiles(Path(self.mktemp()))

    def assert_line(self, line: str, url: str = "https://api.example", **rule: Any) -> None:
        """Check the error about a rule."""
        config = {"rules": [{"listenPort": 1, "upstreamUrl": url, **rule}]}
        with self.assertRaises(ConfigError) as caught:
            parse_config(json.dumps(config).encode(), "c")
        self.assertEqual(str(caught.exception), "c: rules[0]." + line)

    def test_good(self) -> None:
        """Files that are in order are not errors, of an adapter either."""
        ca = self.written(CA.cert_pem.bytes())
        rule = {"caFile": ca, "certificateFile": self.files.certificate, "keyFile": self.files.key}
        adapter: dict[str, Any] = {"adapter": {}}
        for more in ({}, adapter):
            config = {"rules": [{"listenPort": 1, "upstreamUrl": "https://api.example", **rule, **more}]}
            (parsed,) = parse_config(json.dumps(config).encode(), "c")[0].rules
            self.assertEqual(parsed.route, Route(None, ca, self.files.certificate, self.files.key))

    def test_missing(self) -> None:
        """A file that is not there, or is a directory."""
        for name in ("caFile", "certificateFile"):
            self.assert_line(f"{name}: /no/such/file does not exist", **{name: "/no/such/file"})
            self.assert_line(f"{name}: / cannot be read: Is a directory", **{name: "/"})
        more = {"certificateFile": self.files.certificate}
        self.assert_line("keyFile: /no/such/file does not exist", keyFile="/no/such/file", **more)

    def test_unreadable(self) -> None:
        """A file that may not be read."""
        path = self.written(CA.cert_pem.bytes())

        def denied(self: Path) -> bytes:
            raise PermissionError(13, os.strerror(13))

        self.patch(Path, "read_bytes", denied)
        self.assert_line(f"caFile: {path} cannot be read: Permission denied", caFile=path)

    def test_not_pem(self) -> None:
        """A file that holds something else."""
        der = self.written(ssl.PEM_cert_to_DER_cert(CA.cert_pem.bytes().decode()))
        broken = self.written(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        for name in ("caFile", "certificateFile"):
            self.assert_line(f"{name}: {der} holds no certificate in PEM form", **{name: der})
            self.assert_line(f"{name}: {broken} holds a certificate that cannot be read", **{name: broken})
        for key, line in (
            (der, f"keyFile: {der} holds no private key in PEM form"),
            (self.files.certificate, f"keyFile: {self.files.certificate} holds no private key in PEM form"),
        ):
            self.assert_line(line, certificateFile=self.files.certificate, keyFile=key)
        bad = self.written(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        line = f"keyFile: {bad} holds a private key that cannot be read"
        self.assert_line(line, certificateFile=self.files.certificate, keyFile=bad)

    def test_no_key(self) -> None:
        """A certificate without a key, and a key without a certificate."""
        path = self.files.certificate
        line = f"certificateFile: {path} holds no private key in PEM form, and there is no keyFile"
        self.assert_line(line, certificateFile=path)
        self.assert_line("keyFile: needs a certificateFile", keyFile=self.files.key)

    def test_other_key(self) -> None:
        """A key that is not the certificate's, of the same kind or another."""
        ed25519 = self.written(_generated())
        for path in (ClientFiles(Path(self.mktemp())).key, ed25519):
            line = (
                f"keyFile: the key in {path} is not that of the first certificate in {self.files.certificate}"
            )
            self.assert_line(line, certificateFile=self.files.certificate, keyFile=path)

    def test_encrypted(self) -> None:
        """A key with a passphrase; nobody is asked for it."""
        loaded = serialization.load_pem_private_key(Path(self.files.key).read_bytes(), None)
        for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
            secret = serialization.BestAvailableEncryption(b"passphrase")
            path = self.written(loaded.private_bytes(PEM, form, secret))
            line = f"keyFile: the key in {path} is encrypted; store it without a passphrase"
            self.assert_line(line, certificateFile=self.files.certificate, keyFile=path)

    def test_http(self) -> None:
        """Certificates need an https upstream."""
        for name in ("caFile", "certificateFile", "keyFile"):
            self.assert_line(f"{name}: needs an https upstreamUrl", "http://api.example", **{name: "x"})


def _generated() -> bytes:
    none = serialization.NoEncryption()
    return Ed25519PrivateKey.generate().private_bytes(PEM, serialization.PrivateFormat.PKCS8, none)
