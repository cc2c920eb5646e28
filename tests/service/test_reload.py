"""Reloads at SIGHUP: no connection is refused or cut."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.ssl import Certificate, optionsForClientTLS

from tests.support.admin import OPEN, Viewer
from tests.support.certificates import CA
from tests.support.loopback import Upstream, reactor
from tests.support.payloads import CHAT, CHAT_BODY
from tests.support.twistd import Process, ProcessTestCase, eventually, free_port
from tests.support.wire import Stream, head, read_head, read_request, read_response, respond, send_request


def descriptors(pid: int) -> int:
    """Count the open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


class ReloadTestCase(ProcessTestCase):
    """Starts twistd with a config file that changes."""

    async def begin(self, *rules: dict[str, Any], **config: Any) -> Process:
        """Start with these rules, and wait until they are served."""
        self.path = self.write_config({"workers": self.workers, **config, "rules": rules})
        process = self.twistd("-c", str(self.path))
        await process.line("listening on")
        for number in range(1, self.workers + 1) if self.workers > 1 else ():
            await process.line(f"worker {number} of {self.workers} is process")
        return process

    async def reload(self, process: Process, *rules: dict[str, Any], **config: Any) -> None:
        """Write the config file again, and wait until it is read."""
        content = {"workers": self.workers, **config, "rules": rules}
        self.write_config(content, self.path.parent)
        await self.hang_up(process)

    async def hang_up(self, process: Process, line: str = "was read again") -> None:
        """Send SIGHUP and wait until the log has another `line`."""
        before = len(re.findall(line, process.output))
        process.signal("HUP")
        await process.times(line, before + 1)

    async def named(self, name: bytes) -> Upstream:
        """Start an upstream that responds with its name and the request's target."""

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                respond(stream, 200, name + b" " + request.target.encode())

        return await self.upstream(script)

    async def held(self) -> tuple[Upstream, Deferred[None]]:
        """Start an upstream that responds "ok" once the Deferred fires."""
        go_on: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            await go_on
            stream.write(head(200, [("Content-Length", "2")]) + b"ok")

        return await self.upstream(script), go_on

    async def connected(self, upstream: Upstream) -> None:
        """Wait until a request has reached an upstream."""

        async def look() -> bool:
            return any(stream.received for stream in upstream.connections)

        await eventually(look)

    async def ask(self, stream: Stream, target: str = "/x") -> bytes:
        """Make a request on a connection, and return the response's body."""
        send_request(stream, "GET", target)
        return (await read_response(stream, "GET")).body

    async def asks(self, port: int, name: bytes) -> None:
        """Wait until new requests on a port reach the upstream called `name`."""

        async def look() -> bool:
            return (await self.request(port, "GET", "/x")).body == name + b" /x"

        await eventually(look)


class ReloadTests(ReloadTestCase):
    """Reloads that change rules and ports, or nothing."""

    async def test_upstream(self) -> None:
        """New requests go to the new upstream, on kept connections too; a running stream goes on."""
        (old, go_on), new = await self.streaming(), await self.named(b"new")
        port = free_port()
        rule = {"listenPort": port, "upstreamUrl": old}
        process = await self.begin(rule)
        client = await self.client(port)
        send_request(client, "GET", "/v1/stream")
        await client.until(b"Hel")
        await self.reload(process, {**rule, "upstreamUrl": new.url})
        await self.asks(port, b"new")
        go_on.callback(None)
        self.assertIn(b"lo", await client.until(b"0\r\n\r\n"))
        self.assertEqual(await self.ask(client), b"new /x")

    async def test_ports(self) -> None:
        """A new port is opened; a removed one accepts nothing, and its requests end."""
        first, second = free_port(), free_port()
        (upstream, go_on), other = await self.held(), await self.named(b"other")
        process = await self.begin({"listenPort": first, "upstreamUrl": upstream.url})
        client = await self.client(first)
        send_request(client, "GET", "/slow")
        await self.connected(upstream)
        await self.reload(process, {"listenPort": second, "upstreamUrl": other.url})
        await self.closed(process, first)
        await self.assert_refused(first)
        await self.asks(second, b"other")
        go_on.callback(None)
        answer = await read_response(client, "GET")
        self.assertEqual((answer.status, answer.body, answer.get("connection")), (200, b"ok", "close"))
        await client.gone()
        await process.line(rf"listening on port {second} for")

    async def test_address(self) -> None:
        """A port may move to another address."""
        upstream = await self.named(b"a")
        port = free_port()
        rule = {"listenPort": port, "upstreamUrl": upstream.url}
        process = await self.begin(rule)
        await self.reload(process, {**rule, "listenAddress": "127.0.0.1"})
        await self.asks(port, b"a")
        await process.line(rf"listening on port {port} of 127\.0\.0\.1 for")

    async def test_invalid(self) -> None:
        """An invalid file is one line in the log, and changes nothing."""
        upstream = await self.named(b"a")
        port, taken = free_port(), free_port()
        await self.listen_on(taken)
        rule = {"listenPort": port, "upstreamUrl": upstream.url}
        process = await self.begin(rule)
        name = re.escape(str(self.path))
        for content, problem in (
            ("{", "line 1, column 2: the file ends before .*"),
            ({"rules": [{**rule, "upstreamUrl": "x"}]}, r"rules\[0\]\.upstreamUrl: must start with .*"),
            (
                {"rules": [rule, {**rule, "listenPort": taken}]},
                rf"rules\[1\]\.listenPort: cannot listen on port {taken}: Address already in use",
            ),
        ):
            self.write_config(content, self.path.parent)
            await self.hang_up(process, f"{name}: {problem}; the configuration stays as it was\n")
        self.assertEqual((await self.request(port, "GET", "/x")).body, b"a /x")
        self.assertNotIn("Traceback", process.output)

    async def listen_on(self, port: int) -> None:
        """Occupy a port."""
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", port))
        listener.listen()

    async def test_unchanged(self) -> None:
        """An unchanged rule keeps its connections to the upstream."""
        upstream = await self.named(b"a")
        port = free_port()
        rule = {"listenPort": port, "upstreamUrl": upstream.url}
        process = await self.begin(rule)
        client = await self.client(port)
        await self.ask(client)
        await self.reload(process, rule)
        await self.ask(client)
        self.assertEqual(len(upstream.connections), 1)

    async def test_stop(self) -> None:
        """Stopping waits for the requests of removed ports, too."""
        upstream, go_on = await self.held()
        first, second = free_port(), free_port()
        process = await self.begin({"listenPort": first, "upstreamUrl": upstream.url})
        client = await self.client(first)
        send_request(client, "GET", "/slow")
        await self.connected(upstream)
        await self.reload(process, {"listenPort": second, "upstreamUrl": upstream.url})
        await self.closed(process, first)
        process.signal("TERM")
        await self.closed(process, second)
        go_on.callback(None)
        self.assertEqual((await read_response(client, "GET")).body, b"ok")
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)

    async def test_nobody_is_refused(self) -> None:
        """During many reloads every request gets its response."""
        upstream = await self.named(b"a")
        port, other = free_port(), free_port()
        rule = {"listenPort": port, "upstreamUrl": upstream.url}
        more = {**rule, "listenPort": other}
        process = await self.begin(rule)
        coming: list[Deferred[bytes]] = []

        async def come() -> bytes:
            return (await self.request(port, "GET", "/x", headers=[("Connection", "close")])).body

        for number in range(10):
            coming += [Deferred.fromCoroutine(come()) for _ in range(10)]
            rules = [{**rule, "timeoutSeconds": 100 + number}, *([more] if number % 2 else [])]
            await self.reload(process, *rules)
        self.assertEqual(set(await gatherResults(coming)), {b"a /x"})
        self.assertNotIn("Traceback", process.output)


class WorkersReloadTests(ReloadTests):
    """Reloads with two workers."""

    workers = 2

    async def test_dead_worker(self) -> None:
        """A worker that is replaced after a reload serves the new configuration."""
        upstream, other = await self.named(b"a"), await self.named(b"b")
        first, second = free_port(), free_port()
        process = await self.begin({"listenPort": first, "upstreamUrl": upstream.url})
        await self.reload(process, {"listenPort": second, "upstreamUrl": other.url})
        await self.asks(second, b"b")
        pids = [int(pid) for pid in re.findall(r"worker \d of 2 is process (\d+)", process.output)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await process.times(r"is process \d+", 4)
        self.assertEqual((await self.request(second, "GET", "/x")).body, b"b /x")

    async def test_number(self) -> None:
        """Another number of workers takes effect at the next start, as the log says."""
        upstream = await self.named(b"a")
        port = free_port()
        rule = {"listenPort": port, "upstreamUrl": upstream.url}
        process = await self.begin(rule)
        await self.reload(process, rule, workers=3)
        await process.line("workers: another number takes effect at the next start")
        self.assertNotIn("of 3", process.output)


class AdminTests(ReloadTestCase):
    """The admin port of the process."""

    async def test_health(self) -> None:
        """The process is ready, then draining while a request runs, and healthy all the time."""
        upstream, go_on = await self.held()
        port, admin = free_port(), free_port()
        process = await self.begin(
            {"listenPort": port, "upstreamUrl": upstream.url}, admin={"listenPort": admin}
        )
        await self.assert_health(admin, 200, "ready")
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY)

        await self.connected(upstream)
        process.signal("TERM")
        await self.closed(process, port)
        await self.assert_health(admin, 503, "draining")
        go_on.callback(None)
        self.assertEqual((await read_response(client)).body, b"ok")
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)
        self.assertNotIn("healthz", process.output)

    async def assert_health(self, port: int, status: int, word: str) -> None:
        """Check both health checks."""
        health = await self.request(port, "GET", "/healthz")
        self.assertEqual((health.status, health.json()), (200, {"status": "ok"}))
        ready = await self.request(port, "GET", "/readyz")
        self.assertEqual((ready.status, ready.json()), (status, {"status": word}))

    async def test_reload(self) -> None:
        """The admin port is opened, moved and closed by reloads."""
        upstream = await self.named(b"a")
        first, second = free_port(), free_port()
        rule = {"listenPort": free_port(), "upstreamUrl": upstream.url}
        process = await self.begin(rule)
        await self.assert_refused(first)
        await self.reload(process, rule, admin={"listenPort": first})
        await self.assert_health(first, 200, "ready")
        await self.reload(process, rule, admin={"listenPort": second})
        await self.assert_health(second, 200, "ready")
        await process.line(rf"TCP Port {first} Closed")
        await self.assert_refused(first)
        await self.reload(process, rule)
        await process.line(rf"TCP Port {second} Closed")

    async def view(self, port: int) -> Viewer:
        """Look at what goes through."""
        stream = await self.client(port)
        stream.write(OPEN)
        await read_head(stream)
        return Viewer(stream)

    async def test_shown(self) -> None:
        """An admin port that a reload opens shows requests and reloads, and so does one that is moved."""
        upstream = await self.named(b"a")
        port, first, second = free_port(), free_port(), free_port()
        rule = {"listenPort": port, "upstreamUrl": upstream.url}
        process = await self.begin(rule)
        await self.reload(process, rule, admin={"listenPort": first})
        viewer = await self.view(first)
        await viewer.event()
        self.assertIsNone((viewer.state or {})["reload"]["problem"])
        await self.reload(process, rule, admin={"listenPort": second})
        await viewer.stream.gone()
        viewer = await self.view(second)
        await viewer.event()
        await self.request(port, "GET", "/x")
        await viewer.until(lambda: [row["path"] for row in viewer.ended] == ["/x"])
        self.write_config("{", self.path.parent)
        await self.hang_up(process, "the configuration stays as it was")
        await viewer.until(lambda: (viewer.state or {})["reload"]["problem"])
        self.assertIn("config.json", (viewer.state or {})["reload"]["problem"])

    async def test_port_in_use(self) -> None:
        """An invalid admin port prevents the start, like that of a rule."""
        port = free_port()
        rule = {"listenPort": port, "upstreamUrl": "http://127.0.0.1:9"}
        for admin, problem in (
            ({"listenPort": port}, f"admin.listenPort: port {port} is already used by rules[0]"),
            ({"listenPort": 1.5}, "admin.listenPort: must be a whole number, not 1.5"),
            ({}, "admin.listenPort: is required"),
            ({"listenPort": 1, "listenAddress": "x"}, "admin.listenAddress: must be an IPv4 or IPv6 address"),
        ):
            path = self.write_config({"rules": [rule], "admin": admin})
            process = self.twistd("-c", str(path))
            self.assertEqual(await process.ended(), 1)
            self.assertIn(f"{path}: {problem}", process.output)


class WorkersAdminTests(AdminTests):
    """The admin port of a process with two workers: the supervisor's."""

    workers = 2


class RefusalTests(ReloadTestCase):
    """What the upstream refused, after a reload."""

    async def test_refusals(self) -> None:
        """What the upstream refused is tried anew, also where nothing in the configuration has changed."""
        asked: list[bool] = []

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                asked.append("stream" in request.json())
                if asked[-1]:
                    respond(stream, 400, b'{"error": {"param": "stream"}}')
                else:
                    respond(stream, 200, b"{}")

        port = free_port()
        rule = {"listenPort": port, "upstreamUrl": (await self.upstream(script)).url}
        process = await self.begin(rule)
        for _ in range(2):
            for expected in ([True, False], [False]):
                asked.clear()
                self.assertEqual((await self.request(port, "POST", CHAT, CHAT_BODY)).body, b"{}")
                self.assertEqual(asked, expected)
            await self.reload(process, rule)
        self.assertEqual(len(re.findall("learned of .* refuses streams", process.output)), 2)


class CertificateTests(ReloadTestCase):
    """Certificates of ``ssl:`` listeners."""

    def issue(self, directory: Path, name: str) -> None:
        """Replace the certificate by one for `name`."""
        certificate = CA.issue_cert(name)
        certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))

    async def connect(self, port: int, name: str) -> Stream:
        """Connect a client that accepts only a certificate for `name`."""
        stream = Stream()
        options = optionsForClientTLS(name, Certificate.loadPEM(CA.cert_pem.bytes()))
        endpoint = wrapClientTLS(options, HostnameEndpoint(reactor, "127.0.0.1", port))
        await connectProtocol(endpoint, stream)

        async def finish() -> None:
            if stream.lost is None:
                stream.transport.abortConnection()
            await stream.gone()

        self.addCleanup(lambda: Deferred.fromCoroutine(finish()))
        return stream

    async def test_renewed(self) -> None:
        """New connections get the new certificate, old ones go on; an invalid one changes nothing."""
        upstream = await self.named(b"a")
        directory = self.directory()
        self.issue(directory, "old.example")
        port = free_port()
        files = f"privateKey={directory}/key.pem:certKey={directory}/cert.pem"
        rule = {"listen": f"ssl:{port}:{files}:interface=127.0.0.1", "upstreamUrl": upstream.url}
        process = await self.begin(rule)
        old = await self.connect(port, "old.example")
        self.assertEqual(await self.ask(old), b"a /x")
        self.issue(directory, "new.example")
        await self.reload(process, rule)

        async def renewed() -> bool:
            return (await self.ask(await self.connect(port, "new.example"))) == b"a /x"

        self.assertTrue(await renewed())
        self.assertEqual(await self.ask(old), b"a /x")
        (directory / "cert.pem").write_text("junk")
        await self.hang_up(process, "names a key or certificate that cannot be used; the configuration stays")
        self.assertTrue(await renewed())
        self.assertNotIn("Traceback", process.output)

    async def test_removed(self) -> None:
        """The certificate of a rule may be removed together with the rule."""
        upstream = await self.named(b"a")
        directory = self.directory()
        self.issue(directory, "old.example")
        files = f"privateKey={directory}/key.pem:certKey={directory}/cert.pem"
        plain = {"listenPort": free_port(), "upstreamUrl": upstream.url}
        encrypted = {"listen": f"ssl:{free_port()}:{files}:interface=127.0.0.1", "upstreamUrl": upstream.url}
        process = await self.begin(plain, encrypted)
        (directory / "key.pem").unlink()
        (directory / "cert.pem").unlink()
        await self.reload(process, plain)
        self.assertNotIn("stays as it was", process.output)
