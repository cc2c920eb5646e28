"""Admin ports for tests, in this process."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

from stream_proxy.observe.ledger import Ledger
from stream_proxy.observe.record import Record
from stream_proxy.request_log import RequestLog
from stream_proxy.service.admin.access import AdminAccess
from stream_proxy.service.admin.feed import Source
from stream_proxy.service.admin.health import Status
from stream_proxy.service.admin.local import LocalSource
from stream_proxy.service.admin.service import AdminService
from stream_proxy.service.listening import open_listener
from tests.support.loopback import LoopbackTestCase, reactor
from tests.support.wire import Headers, Message, Stream, read_head, read_response

KEY = "sk-admin-1"


OPEN = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Viewer:
    """One connection to the feed, and what the browser knows by it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.live: dict[str, dict[str, Any]] = {}
        self.ended: list[dict[str, Any]] = []
        self.flight = 0
        self.state: dict[str, Any] | None = None
        self.snapshots = 0

    async def event(self) -> str:
        """Take the next event, and return its name."""
        while True:
            size = int(await self.stream.until(b"\r\n"), 16)
            text = (await self.stream.exactly(size)).decode()
            await self.stream.exactly(2)
            if text.startswith("event: "):
                break
        name, _, data = text.removeprefix("event: ").strip().partition("\ndata: ")
        message = json.loads(data)
        self.flight, self.state = message["flight"], message["state"]
        if name == "snapshot":
            self.snapshots += 1
            self.live = {row["id"]: row for row in message["live"]}
            self.ended = message["recent"]
        for row in message.get("upsert", ()):
            self.live.setdefault(row["id"], {}).update(row)
        for each in message.get("remove", ()):
            self.live.pop(each, None)
        self.ended += message.get("ended", ())
        return name

    async def until(self, condition: Any) -> None:
        """Take events until `condition` holds."""
        while not condition():
            await self.event()


class AdminTestCase(LoopbackTestCase):
    """An admin port over a ledger."""

    status: Status = "ready"

    def setUp(self) -> None:
        self.ledger = Ledger(reactor.seconds)

    def admin(
        self,
        keys: Iterable[str] = (),
        hosts: Iterable[str] = (),
        *,
        local: bool = True,
        source: Source | None = None,
    ) -> tuple[AdminService, int]:
        """Start an admin port; return its service and its number."""
        listener = open_listener("tcp:0:interface=127.0.0.1")
        port = listener.port
        assert port is not None
        service = AdminService(
            reactor,
            listener,
            AdminAccess([key.encode() for key in keys], hosts, local=local, port=port),
            status=lambda: self.status,
            source=source or LocalSource(self.ledger),
            state=lambda: {"status": self.status},
            log=RequestLog(observer=cast(Any, lambda event: None)),
        )
        service.startService()
        self.addCleanup(service.stopService)
        return service, port

    async def send(
        self,
        port: int,
        target: str = "/",
        method: str = "GET",
        headers: Headers = (),
        *,
        body: bytes = b"",
        version: str = "1.1",
        host: str | None = "localhost",
    ) -> Message:
        """Send a request with exactly these fields; return the response."""
        fields = [*headers, *([] if host is None else [("Host", host)])]
        if body or method == "POST":
            fields.append(("Content-Length", str(len(body))))
        lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in fields), "", ""]
        stream = await self.client(port)
        stream.write("\r\n".join(lines).encode("latin-1") + body)
        return await read_response(stream, method)


class FeedTestCase(AdminTestCase):
    """Viewers of an admin port."""

    async def view(self, port: int) -> Viewer:
        """Open the feed."""
        stream = await self.client(port)
        stream.write(OPEN)
        head = await read_head(stream)
        self.assertEqual((head.status, head.get("Content-Type")), (200, "text/event-stream; charset=utf-8"))
        return Viewer(stream)

    def begin(self, **fields: Any) -> Record:
        """Begin a request."""
        record = self.ledger.begin("8080")
        record.method, record.path = b"POST", b"/v1/chat/completions"
        for name, value in fields.items():
            setattr(record, name, value)
        return record
