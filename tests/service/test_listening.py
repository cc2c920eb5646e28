"""Listeners: TCP, TLS, UNIX sockets, systemd's sockets, and behind HAProxy."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import clientFromString, connectProtocol, wrapClientTLS
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.plugins.twisted_core import systemdEndpointParser
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy import ProxyResource, ProxySite
from stream_proxy.errors import ConfigError
from stream_proxy.service.configuration.types import Config, Rule
from stream_proxy.service.listening import (
    Listener,
    endpoint_of,
    open_listener,
    open_listeners,
    stop_accepting,
)
from tests.support.certificates import CA
from tests.support.loopback import reactor, turns
from tests.support.payloads import CHAT, CHAT_BODY
from tests.support.sessions import TEXT, WebSocketTestCase, frame, handshake
from tests.support.twistd import ProcessTestCase, free_port
from tests.support.wire import Stream, all_gone, read_head, read_response, send_request

URL = "http://x"
#: What a load balancer sends before the request.
PROXIED = b"PROXY TCP4 1.2.3.4 127.0.0.1 5 6\r\n"


class ListenTests(WebSocketTestCase):
    """Each kind of listener carries everything: calls, uploads, early responses, WebSockets."""

    async def serve(self, endpoint: str) -> Listener:
        """Start a proxy in front of the mock, on a listener."""
        listener = open_listener(endpoint)
        resource = ProxyResource(await self.mock(), reactor=reactor)
        site = ProxySite(resource, reactor=reactor)
        port = listener.listen(reactor, site)

        async def finish() -> None:
            await maybeDeferred(stop_accepting, port)
            listener.close()
            await site.drain(0)
            await resource.close()

        self.addCleanup(lambda: Deferred.fromCoroutine(finish()))
        return listener

    async def connect(self, endpoint: str, tls: Any = None) -> Stream:
        """Connect a client."""
        stream = Stream()
        client = clientFromString(reactor, endpoint)
        await connectProtocol(client if tls is None else wrapClientTLS(tls, client), stream)

        def finish() -> Deferred[object]:
            if stream.lost is None:
                stream.transport.abortConnection()
            return Deferred.fromCoroutine(all_gone([stream]))

        self.addCleanup(finish)
        return stream

    async def use(self, endpoint: str, tls: Any = None, first: bytes = b"") -> None:
        """Make requests of every kind."""
        client = await self.connect(endpoint, tls)
        client.write(first)
        for _ in range(2):
            send_request(client, "POST", CHAT, CHAT_BODY)
            self.assertEqual((await read_response(client)).json()["object"], "chat.completion")
        send_request(client, "POST", CHAT, {**CHAT_BODY, "stream": True})
        self.assertIn(b"[DONE]", (await read_response(client)).body)
        fields = [("Content-Length", "100"), ("Expect", "100-continue")]
        send_request(client, "POST", "/v1/files", headers=fields)
        self.assertEqual((await read_head(client)).status, 100)
        client.write(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n".ljust(100))
        await read_response(client)
        refused = await self.connect(endpoint, tls)
        refused.write(first + b"POST http:/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        self.assertEqual((await read_response(refused)).status, 400)
        self.assertEqual(await refused.rest(), b"")
        session = await self.connect(endpoint, tls)
        session.write(first + handshake())
        self.assertEqual((await read_head(session)).status, 101)
        session.write(frame(TEXT, b'{"type": "response.create"}', key=b"1234"))
        await session.some()
        session.abort()

    async def test_tcp(self) -> None:
        """``tcp:`` listens on a TCP port."""
        listener = await self.serve("tcp:0:interface=127.0.0.1")
        self.assertTrue(listener.local)
        await self.use(f"tcp:127.0.0.1:{listener.port}")

    async def test_unix(self) -> None:
        """``unix:`` makes a socket file with the mode it asks for, until it is closed."""
        path = Path(self.mktemp())
        listener = await self.serve(f"unix:{path}:mode=600")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual((listener.local, listener.port), (True, None))
        await self.use(f"unix:{path}")

    async def test_ssl(self) -> None:
        """``ssl:`` offers only HTTP/1.1."""
        certificate = CA.issue_cert("localhost")
        key, chain = self.mktemp(), self.mktemp()
        certificate.private_key_pem.write_to_path(key)
        certificate.cert_chain_pems[0].write_to_path(chain)
        listener = await self.serve(f"ssl:0:privateKey={key}:certKey={chain}:interface=127.0.0.1")
        root = Certificate.loadPEM(CA.cert_pem.bytes())
        tls = optionsForClientTLS("localhost", root, acceptableProtocols=[b"h2", b"http/1.1"])
        await self.use(f"tcp:127.0.0.1:{listener.port}", tls)

    async def test_haproxy(self) -> None:
        """``haproxy:`` expects the line of the PROXY protocol first."""
        listener = await self.serve("haproxy:tcp:0:interface=127.0.0.1")
        await self.use(f"tcp:127.0.0.1:{listener.port}", first=PROXIED)

    async def test_systemd(self) -> None:
        """``systemd:`` uses a socket that is open already, and closes it once."""
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            given = os.dup(server.fileno())
            self.patch(systemdEndpointParser, "_sddaemon", ListenFDs([given], ["web"]))
            listener = await self.serve("systemd:domain=INET:name=web")
        self.assertTrue(listener.local)
        await self.use(f"tcp:127.0.0.1:{listener.port}")

    async def test_waiting(self) -> None:
        """Clients that connect before a port closes are accepted, even after it was asked to stop."""
        listener = open_listener("tcp:0:interface=127.0.0.1")
        site = ProxySite(ProxyResource(await self.mock(), reactor=reactor), reactor=reactor)
        address = ("127.0.0.1", listener.port)
        with socket.socket() as early, socket.socket() as late:
            early.connect(address)
            port = listener.listen(reactor, site)
            listener.close()
            stopping = maybeDeferred(stop_accepting, port)
            late.connect(address)
            for client in (early, late):
                client.sendall(b"OPTIONS http:/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await stopping
            self.assertEqual(len(site.channels), 2)
            await turns(3)
            for client in (early, late):
                self.assertIn(b"400", client.recv(100))
        await site.drain(0)


class OpenTests(SynchronousTestCase):
    """Listeners that can be opened, and the errors for those that cannot."""

    def assert_error(self, endpoint: str, problem: str) -> None:
        """Check the error for a rule that listens there."""
        config = Config(rules=[Rule(listen=endpoint, upstream_url=URL)])
        error = self.assertRaises(ConfigError, open_listeners, config, "c: {}".format)
        self.assertRegex(str(error), rf"\Ac: rules\[0\]\.listen: {problem}\Z")

    def test_errors(self) -> None:
        """Each error is one line."""
        missing = self.mktemp()
        junk = self.mktemp()
        Path(junk).write_text("junk")
        for endpoint, problem in (
            ("", " is no Twisted endpoint description: .*"),
            ("nothing", "nothing is no Twisted endpoint description: .*"),
            ("tcp", "tcp is no Twisted endpoint description: .*"),
            ("tcp:x", "tcp:x is no Twisted endpoint description: .*"),
            ("tcp:1:color=red", "tcp:1:color=red is no Twisted endpoint description: .*"),
            ("stdio:", "stdio: is .*"),
            (f"ssl:0:privateKey={missing}", f"ssl:.* cannot be used: No such file or directory: .*{missing}"),
            (f"ssl:0:privateKey={junk}", "ssl:.* names a key or certificate that cannot be used"),
            (f"unix:{missing}/x", f"cannot listen on unix:{missing}/x: No such file or directory"),
            ("tcp:0:interface=192.0.2.1", "cannot listen on port 0: Cannot assign requested address"),
            (
                "systemd:domain=INET:index=9",
                "systemd:.* is no socket that systemd has passed to this process",
            ),
        ):
            self.assert_error(endpoint, problem)

    def test_in_use(self) -> None:
        """No port is shared by mistake: not with other programs, not between rules."""
        listener = open_listener("tcp:0:interface=127.0.0.1", 2)
        self.addCleanup(listener.close)
        self.assert_error(
            f"tcp:{listener.port}", f"cannot listen on port {listener.port}: Address already in use"
        )
        port = free_port()
        config = Config(
            rules=[Rule(listen_port=port, upstream_url=URL), Rule(listen=f"tcp:{port}", upstream_url=URL)]
        )
        error = self.assertRaises(ConfigError, open_listeners, config, str)
        self.assertIn(f"rules[1].listen: cannot listen on port {port}", str(error))
        again = open_listeners(Config(rules=config.rules[:1]), str)  # the failure left nothing open
        for each in again.values():
            each.close()

    def test_stale_file(self) -> None:
        """The file of a UNIX socket that no process serves is replaced; no other file is."""
        path = self.mktemp()
        first = open_listener(f"unix:{path}")
        self.assert_error(f"unix:{path}", f"cannot listen on unix:{path}: Address already in use")
        first.sockets[0].close()
        open_listener(f"unix:{path}").close()
        self.assertFalse(os.path.exists(path))
        Path(path).write_text("data")
        self.assert_error(f"unix:{path}", f"cannot listen on unix:{path}: Address already in use")
        self.assertEqual(Path(path).read_text(), "data")

    def test_local(self) -> None:
        """Loopback addresses are local; all addresses together are not."""
        for interface, local in (("127.0.0.1", True), (r"\:\:1", True), ("", False), (r"\:\:", False)):
            listener = open_listener(f"tcp:0:interface={interface}")
            self.assertEqual(listener.local, local)
            listener.close()

    def test_descriptions(self) -> None:
        """A rule's port and address become an endpoint."""
        rule = Rule(listen_port=5, listen_address="::1", upstream_url=URL)
        self.assertEqual(endpoint_of(rule), r"tcp:5:interface=\:\:1")
        self.assertEqual(endpoint_of(Rule(listen="unix:/x", upstream_url=URL)), "unix:/x")


class ProcessTests(ProcessTestCase):
    """``"listen"`` in the config."""

    async def reach(self, workers: int) -> None:
        """Listen in several ways, with several processes."""
        mock = await self.mock()
        # The system limits the length of the path to 107 bytes, which that of a checkout could exceed.
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = Path(folder, "socket")
        port = free_port()
        rules = [
            {"listen": f"unix:{path}", "upstreamUrl": mock},
            {"listen": f"haproxy:tcp:{port}:interface=127.0.0.1", "upstreamUrl": mock},
        ]
        process = self.twistd("-c", str(self.write_config({"rules": rules, "workers": workers})))
        await process.line(rf"listening on haproxy:tcp:{port}:interface=127.0.0.1 for {mock}\n")
        for name, first in (
            (f"unix:{path}", b""),
            (f"tcp:127.0.0.1:{port}", PROXIED),
        ):
            stream = Stream()
            await connectProtocol(clientFromString(reactor, name), stream)
            stream.write(first)
            send_request(stream, "GET", "/v1/models", headers=[("Connection", "close")])
            self.assertEqual((await read_response(stream)).status, 200)
            await stream.gone()
        process.signal("TERM")
        await process.ended()
        self.assertNotIn("Traceback", process.output)
        self.assertFalse(path.exists())

    async def test_one_process(self) -> None:
        """One process serves all its listeners."""
        await self.reach(1)

    async def test_workers(self) -> None:
        """Two workers serve all their listeners."""
        await self.reach(2)

    async def test_both(self) -> None:
        """``listen`` and ``listenPort`` exclude each other."""
        rule = {"listenPort": 1, "listen": "tcp:1", "upstreamUrl": URL}
        path = self.write_config({"rules": [rule]})
        process = self.twistd("-c", str(path))
        self.assertEqual(await process.ended(), 1)
        words = "listen: stands in place of listenPort and listenAddress; leave these out"
        self.assertEqual(process.output, f"{path}: rules[0].{words}\n")


class ExpiryTests(SynchronousTestCase):
    """When the certificate of a listener expires."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.path.mkdir()
        files = f"privateKey={self.path}/key.pem:certKey={self.path}/cert.pem"
        listen = f"ssl:{free_port()}:{files}:interface=127.0.0.1"
        self.config = Config(rules=[Rule(listen=listen, upstream_url=URL)])

    def issue(self, year: int) -> None:
        """Replace the certificate by one that expires then."""
        certificate = CA.issue_cert("a.example", not_after=datetime(year, 1, 1, tzinfo=UTC))
        certificate.private_key_pem.write_to_path(str(self.path / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(self.path / "cert.pem"))

    def test_renewed(self) -> None:
        """It is known, also after a renewal, and of one that cannot be used it stays what it was."""
        self.issue(2040)
        listeners = open_listeners(self.config, str)
        (listener,) = listeners.values()
        self.addCleanup(listener.close)
        self.assertEqual(listener.expires, datetime(2040, 1, 1, tzinfo=UTC).timestamp())
        self.issue(2041)
        open_listeners(self.config, str, listeners)
        self.assertEqual(listener.expires, datetime(2041, 1, 1, tzinfo=UTC).timestamp())
        (self.path / "cert.pem").write_text("junk")
        with self.assertRaises(ConfigError):
            open_listeners(self.config, str, listeners)
        self.assertEqual(listener.expires, datetime(2041, 1, 1, tzinfo=UTC).timestamp())

    def test_none(self) -> None:
        """A listener without TLS has none."""
        listener = open_listener(f"tcp:{free_port()}:interface=127.0.0.1")
        self.addCleanup(listener.close)
        self.assertIsNone(listener.expires)
