"""Tests of the capture on the admin port: who may see it, its switch, its downloads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from msgspec.structs import replace
from twisted.internet.defer import Deferred

from stream_proxy.observe.capture.capture import Capture
from stream_proxy.observe.ledger import Ledger
from stream_proxy.request_log import RequestLog
from stream_proxy.service.admin.access import Guard
from stream_proxy.service.admin.capture.local import MOST_DOWNLOADS, LocalCapture
from stream_proxy.service.admin.capture.options import capture_options
from stream_proxy.service.admin.capture.routes import serve_capture
from stream_proxy.service.admin.capture.workers import WorkersCapture
from stream_proxy.service.admin.local import LocalSource
from stream_proxy.service.admin.remote import WorkersSource
from stream_proxy.service.admin.worker import ObservationPort
from stream_proxy.service.configuration.loading import parse_config
from stream_proxy.service.configuration.types import Admin, CaptureConfig, Config, Rule
from stream_proxy.service.keys import KeySource, UpstreamKeySource
from stream_proxy.service.main import MainService
from stream_proxy.service.rules import ProxyService
from stream_proxy.service.workers.sockets import SocketDirectory
from tests.support.admin import KEY, AdminTestCase
from tests.support.har_schema import check_har
from tests.support.loopback import reactor, turns
from tests.support.twistd import free_port
from tests.support.wire import JSON, Message, Stream, read_head, read_request, respond

BEARER = ("Authorization", f"Bearer {KEY}")
LOG = RequestLog(observer=cast(Any, lambda event: None))


def add(ledger: Ledger, capture: Capture, body: bytes = b"{}", target: bytes = b"/v1/x") -> int:
    """Capture an exchange, and return its number."""
    record = ledger.begin("main")
    record.method = b"POST"
    fields = [(b"Host", b"api.test"), (b"Authorization", b"Bearer secret-secret")]
    exchange = record.capture = capture.begin(record, target, b"HTTP/1.1", fields, "http://up")
    exchange.request_part(body)
    exchange.response_head(200, b"OK", [])
    exchange.response_part(body)
    ledger.end(record)
    return record.number


class CaptureTestCase(AdminTestCase):
    """An admin port with a key, and a capture."""

    def setUp(self) -> None:
        super().setUp()
        self.capture = Capture(self.ledger, always=True)
        service, self.port = self.admin([KEY])
        serve_capture(service.resource, LocalCapture(reactor, self.capture))

    async def ask(self, target: str, method: str = "GET", body: bytes = b"") -> Message:
        """Send a request with the key."""
        return await self.send(self.port, target, method, [BEARER], body=body)


class CaptureTests(CaptureTestCase):
    """One process."""

    async def test_key(self) -> None:
        """A capture needs the key on loopback, too, and none is shown without one at all."""
        service, port = self.admin()
        serve_capture(service.resource, LocalCapture(reactor, self.capture))
        for target in ("/capture", "/capture.har", "/capture.jsonl", "/capture/1.curl"):
            for each in (self.port, port):
                self.assertEqual((await self.send(each, target)).status, 401, target)
        for target in ("/capture", "/capture/clear", "/capture/want/1"):
            self.assertEqual((await self.send(self.port, target, "POST")).status, 401)
        for headers in ([("Sec-Fetch-Site", "cross-site")], [("Origin", "https://evil.test")]):
            response = await self.send(
                self.port, "/capture", "POST", [BEARER, *headers], body=b'{"requests":1}'
            )
            self.assertEqual(response.status, 403)
        self.assertEqual(self.capture.wanted, 0)

    async def test_switch(self) -> None:
        """The state is told, the next requests can be asked for, and what there is can be dropped."""
        self.capture.change(always=False, megabytes=3, bodies=True, secrets=())
        self.assertEqual((await self.ask("/capture")).json()["on"], False)
        state = (await self.ask("/capture", "POST", b'{"requests": 20}')).json()
        self.assertEqual((state["on"], state["wanted"], state["maxBytes"]), (True, 20, 3 * 2**20))
        add(self.ledger, self.capture)
        state = (await self.ask("/capture")).json()
        self.assertEqual((state["wanted"], state["exchanges"], state["always"]), (19, 1, False))
        self.assertGreater(state["bytes"], 0)
        state = (await self.ask("/capture/clear", "POST")).json()
        self.assertEqual((state["exchanges"], state["bytes"]), (0, 0))
        for body in (
            b"",
            b"{}",
            b'{"requests": -1}',
            b'{"requests": "x"}',
            b'{"requests": 1e9}',
            b"[" * 9999,
        ):
            self.assertEqual((await self.ask("/capture", "POST", body)).status, 400, body)

    async def test_downloads(self) -> None:
        """All of it is HAR or JSON lines, one exchange a command or either; none shows a secret."""
        numbers = [add(self.ledger, self.capture, b'{"n": %d}' % number) for number in range(3)]
        response = await self.ask("/capture.har")
        self.assertEqual(response.get("content-disposition"), 'attachment; filename="capture.har"')
        self.assertEqual([each["_id"] for each in check_har(response.json())], ["1", "2", "3"])
        response = await self.ask("/capture.jsonl")
        self.assertEqual(response.get("content-type"), "application/x-ndjson")
        self.assertEqual([json.loads(line)["id"] for line in response.body.splitlines()], ["1", "2", "3"])
        response = await self.ask(f"/capture/{numbers[1]}.curl")
        self.assertTrue(response.body.startswith(b"curl -g http://api.test/v1/x"))
        self.assertNotIn(b"secret-secret", response.body)
        (entry,) = check_har((await self.ask(f"/capture/{numbers[1]}.har")).json())
        self.assertEqual(entry["request"]["postData"]["text"], '{"n": 1}')
        for name in ("99.curl", "x.curl", "1.exe", "1", "-1.har", "1-1.curl"):
            self.assertEqual((await self.ask(f"/capture/{name}")).status, 404, name)
        response = await self.ask("/capture.har", "HEAD")
        self.assertEqual((response.status, response.body), (200, b""))

    async def test_slow(self) -> None:
        """A slow reader holds little, others are served meanwhile, and what it missed has been dropped."""
        for _ in range(20):
            add(self.ledger, self.capture, b"x" * 1_000_000)
        stream = await self.client(self.port)
        stream.transport.pauseProducing()
        stream.write(
            f"GET /capture.har HTTP/1.1\r\nHost: localhost\r\n{BEARER[0]}: {BEARER[1]}\r\n\r\n".encode()
        )
        self.assertEqual((await self.ask("/capture")).json()["exchanges"], 20)
        await turns(500)
        self.capture.ring.clear()
        add(self.ledger, self.capture)
        stream.transport.resumeProducing()
        head = await read_head(stream)
        self.assertEqual(head.status, 200)
        body = await chunks(stream)
        entries = check_har(json.loads(body))
        self.assertLess(len(entries), 10)

    async def test_gone(self) -> None:
        """Downloads are few; one whose client leaves makes room for another."""
        for _ in range(10):
            add(self.ledger, self.capture, b"x" * 2_000_000)
        streams = []
        for _ in range(MOST_DOWNLOADS):
            stream = await self.client(self.port)
            stream.write(
                f"GET /capture.har HTTP/1.1\r\nHost: localhost\r\n{BEARER[0]}: {BEARER[1]}\r\n\r\n".encode()
            )
            await read_head(stream)
            stream.transport.pauseProducing()
            streams.append(stream)
        self.assertEqual((await self.ask("/capture.har")).status, 503)
        streams[0].abort()

        async def served() -> bool:
            return (await self.ask("/capture/1.curl")).status == 200

        for _ in range(1000):
            if await served():
                break
        else:
            self.fail("the place was not given back")


async def chunks(stream: Stream) -> bytes:
    """Read the rest of a response in chunks."""
    parts = []
    while size := int(await stream.until(b"\r\n"), 16):
        parts.append(await stream.exactly(size))
        await stream.exactly(2)
    return b"".join(parts)


class WorkersTests(AdminTestCase):
    """Two workers and their parent."""

    def setUp(self) -> None:
        super().setUp()
        directory = SocketDirectory(LOG)
        directory.make()
        self.addCleanup(directory.remove)
        self.ledgers = [Ledger(reactor.seconds) for _ in range(2)]
        self.captures = [Capture(ledger) for ledger in self.ledgers]
        self.ports: dict[int, ObservationPort] = {}
        for number, (ledger, capture) in enumerate(zip(self.ledgers, self.captures, strict=True), 1):
            path = directory.socket(number)
            assert path is not None
            port = self.ports[number] = ObservationPort(reactor, path, LocalSource(ledger), LOG)
            serve_capture(port.resource, LocalCapture(reactor, capture), Guard.KEY)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stop()))
        workers = WorkersSource(reactor, directory.socket, 2)
        service, self.port = self.admin([KEY], source=workers)
        serve_capture(service.resource, WorkersCapture(workers, 2))

    async def stop(self, *numbers: int) -> None:
        """End workers, by default all."""
        for number in numbers or list(self.ports):
            await self.ports.pop(number).close()

    async def ask(self, target: str, method: str = "GET", body: bytes = b"") -> Message:
        """Send a request with the key to the parent."""
        return await self.send(self.port, target, method, [BEARER], body=body)

    async def test_merged(self) -> None:
        """What all have captured is one download, in which ids have the worker's number."""
        state = (await self.ask("/capture", "POST", b'{"requests": 5}')).json()
        self.assertEqual((state["wanted"], state["on"]), (6, True))
        self.assertEqual([capture.wanted for capture in self.captures], [3, 3])
        self.assertEqual(check_har((await self.ask("/capture.har")).json()), [])
        add(self.ledgers[1], self.captures[1], b'{"worker": 2}')
        (entry,) = check_har((await self.ask("/capture.har")).json())
        self.assertEqual(entry["_id"], "2-1")
        for _ in range(2):
            add(self.ledgers[0], self.captures[0], b"x" * 300_000)
        entries = check_har((await self.ask("/capture.har")).json())
        self.assertEqual([each["_id"] for each in entries], ["1-1", "1-2", "2-1"])
        lines = (await self.ask("/capture.jsonl")).body.splitlines()
        self.assertEqual([json.loads(line)["id"] for line in lines], ["1-1", "1-2", "2-1"])
        self.assertIn(b'"worker": 2', (await self.ask("/capture/2-1.curl")).body)
        for name in ("3-1", "2-9", "0-1", "2", "1-1-1", "..-1"):
            self.assertEqual((await self.ask(f"/capture/{name}.curl")).status, 404, name)
        self.assertEqual((await self.ask("/capture")).json()["exchanges"], 3)
        self.assertEqual((await self.ask("/capture/clear", "POST")).json()["exchanges"], 0)

    async def test_without_one(self) -> None:
        """A worker that is not there is left out; if none is there, that is said."""
        self.captures[1].want(9)
        add(self.ledgers[1], self.captures[1])
        await self.stop(1)
        entries = check_har((await self.ask("/capture.har")).json())
        self.assertEqual([each["_id"] for each in entries], ["2-1"])
        self.assertEqual((await self.ask("/capture")).json()["exchanges"], 1)
        await self.stop(2)
        self.assertEqual((await self.ask("/capture")).status, 502)
        self.assertEqual((await self.ask("/capture/2-1.curl")).status, 404)

    async def test_cut(self) -> None:
        """A worker that ends amid its part breaks the download off, so that no file is taken for whole."""
        self.captures[0].want(30)
        for _ in range(30):
            add(self.ledgers[0], self.captures[0], b"x" * 900_000)
        stream = await self.client(self.port)
        stream.write(
            f"GET /capture.har HTTP/1.1\r\nHost: localhost\r\n{BEARER[0]}: {BEARER[1]}\r\n\r\n".encode()
        )
        await stream.until(b'"entries"')
        stream.transport.pauseProducing()
        stopped = Deferred.fromCoroutine(self.stop(1))
        stream.transport.resumeProducing()
        rest = await stream.rest()
        await stopped
        self.assertFalse(rest.endswith(b"0\r\n\r\n"))


class OptionsTests(AdminTestCase):
    """What a configuration says."""

    def test_secrets(self) -> None:
        """Every key is known: of clients, upstreams, adapters, egress proxies and the port itself."""
        keys = {
            "CLIENTS": "client-1 client-2",
            "UPSTREAM": "upstream-1",
            "ADMIN": "admin-1",
            "VENDOR": "vendor-1",
        }
        self.patch(os, "environ", {**os.environ, **keys})
        config, _ = parse_config(
            json.dumps(
                {
                    "rules": [
                        {
                            "listenPort": 1,
                            "upstreamUrl": "https://a.test",
                            "clientKeys": {"environment": "CLIENTS"},
                            "upstreamKey": {"environment": "UPSTREAM"},
                            "proxy": "http://me:pass%2Fword@proxy.test:1",
                        },
                        {
                            "listenPort": 2,
                            "upstreamUrl": "https://b.test/x",
                            "adapter": {
                                "headers": {"X-V": "${VENDOR}", "X-Api-Key": "literal-key", "X-A": "harmless"}
                            },
                        },
                    ],
                    "admin": {"listenPort": 3, "key": {"environment": "ADMIN"}},
                    "capture": {"megabytes": 8, "bodies": False},
                    "workers": 4,
                }
            ).encode(),
            "config.json",
        )
        options = capture_options(config)
        known = {"client-1", "client-2", "upstream-1", "admin-1", "vendor-1", "literal-key", "pass/word"}
        self.assertLessEqual(known, {secret.decode() for secret in options["secrets"]})
        self.assertNotIn(b"harmless", options["secrets"])
        self.assertEqual((options["always"], options["megabytes"], options["bodies"]), (True, 2, False))


class ServiceTests(AdminTestCase):
    """A whole service in this process."""

    def start(self, config: Config) -> MainService:
        """Serve a configuration."""
        service = MainService(reactor, config, LOG, str)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def test_configured(self) -> None:
        """With a configured capture every request is captured, without its keys; a reload ends it."""

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                respond(stream, 200, json.dumps(request.headers).encode(), [JSON])

        keys = Path(self.mktemp())
        keys.write_text("sk-upstream-key")
        admin_keys = Path(self.mktemp())
        admin_keys.write_text(KEY)
        upstream = await self.upstream(script)
        port, admin_port = free_port(), free_port()
        rule = Rule(
            listen_port=port,
            listen_address="127.0.0.1",
            upstream_url=upstream.url,
            upstream_key=UpstreamKeySource(file=str(keys)),
            name="r",
        )
        admin = Admin(listen_port=admin_port, key=KeySource(file=str(admin_keys)))
        config = Config(rules=[rule], admin=admin, capture=CaptureConfig(megabytes=1))
        service = self.start(config)
        response = await self.request(port, target="/v1/x", body={"a": KEY})
        self.assertIn(b"sk-upstream-key", response.body)

        async def lines() -> list[Any]:
            response = await self.send(admin_port, "/capture.jsonl", headers=[BEARER])
            return [json.loads(line) for line in response.body.splitlines()]

        while not await lines():
            pass
        (line,) = await lines()
        self.assertEqual((line["rule"], line["request"]["body"][0][1]), ("r", '{"a": "***"}'))
        self.assertNotIn("sk-upstream-key", json.dumps(line))
        assert isinstance(service.serving, ProxyService)
        service.serving.reload(replace(config, capture=None), {})
        self.assertIsNone(service.serving.shared.ledger.capture)
        await self.request(port, target="/v1/x", body={})
        self.assertEqual(len(await lines()), 1)
