"""Upstream of the soak: it responds, or fails, as the case of each request demands."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from kits.soak.cases import (
    Case,
    chat_completion,
    chat_events,
    response_events,
    response_object,
    service_events,
)
from kits.soak.delivery import Delivery, Dropped, spelled
from kits.soak.frames import CLOSE, TEXT, frame, read_frame, switching
from kits.soak.http import Head, Torn, read_body, read_head

_GONE = (ConnectionError, asyncio.IncompleteReadError, TimeoutError)


@dataclass
class Lost:
    """Calls whose clients leave before the answer, by token.

    :ivar calls: how often each has come.
    :ivar dropped: how many of them the proxy has ended.
    :ivar released: set once they may be answered.
    """

    calls: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    released: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    async def held(self, token: str, reader: asyncio.StreamReader) -> None:
        """Hold a call until it is released.

        :raises Dropped: if the proxy ends it earlier.
        """
        self.calls[token] += 1
        released = asyncio.ensure_future(self.released[token].wait())
        ended = asyncio.ensure_future(reader.read(1))
        await asyncio.wait({released, ended}, return_when=asyncio.FIRST_COMPLETED)
        dropped = ended.done()
        released.cancel()
        ended.cancel()
        await asyncio.gather(
            released, ended, return_exceptions=True
        )  # or the next reader would be a second one
        if dropped:
            self.dropped += 1
            raise Dropped


class Upstream:
    """A server on a port of its own.

    :ivar busy: the number of requests being processed.
    :ivar mixed: descriptions of requests whose head and body belong to different cases.
    :ivar uploads: the tokens of the uploads that have arrived.
    :ivar lost: the calls whose clients leave.
    """

    def __init__(self) -> None:
        self.busy = 0
        self.requests = 0
        self.mixed: list[str] = []
        self.uploads: set[str] = set()
        self.lost = Lost()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen, and return the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**17, backlog=4096)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._writers)

    def close_connections(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()

    async def stop(self) -> None:
        """Stop listening and close all connections."""
        assert self._server is not None
        self._server.close()
        self.close_connections()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while (head := await read_head(reader)) is not None:
                self.busy += 1
                self.requests += 1
                try:
                    await Exchange(self, reader, writer, head).respond()
                finally:
                    self.busy -= 1
        except (Dropped, Torn, *_GONE):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(*_GONE):
                await writer.wait_closed()


class Exchange:
    """One request and its response."""

    def __init__(
        self, upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: Head
    ) -> None:
        self._upstream = upstream
        self._reader = reader
        self._writer = writer
        self._delivery = Delivery(reader, writer)
        self._head = head
        self._asked: dict[str, object] = {}

    async def respond(self) -> None:
        """Respond, or fail."""
        path = self._head.target.partition("?")[0]
        if path == "/v1/realtime":
            await self._session(self._case())
        elif path == "/v1/upload":
            await self._upload(self._case())
        else:
            body = await read_body(self._reader, self._head)
            await self._ordinary(path, body)

    def _case(self) -> Case:
        return Case.of(self._head.get("x-soak") or "")

    async def _ordinary(self, path: str, body: bytes) -> None:
        if path == "/service":
            self._asked = json.loads(body)
            case = Case.of(str(self._asked["user"]))
            await self._stream(case, service_events(case), lambda: {"data": {"content": case.text}})
            return
        case = self._case()
        if path in ("/v1/chat/completions", "/v1/responses"):
            self._asked = json.loads(body)
            if self._asked["user"] != str(case):
                self._upstream.mixed.append(f"{case} came with the body of {self._asked['user']}")
        if case.fault == "lost":
            await self._upstream.lost.held(case.token, self._reader)
        if path == "/v1/chat/completions":
            options = self._asked.get("stream_options")
            usage = isinstance(options, dict) and options.get("include_usage") is True
            if case.fault == "nousage" and usage:
                await self._refuse(case, "Unknown parameter: stream_options", "stream_options")
            elif case.fault == "nostream" and self._asked.get("stream"):
                await self._refuse(case, "This model cannot be streamed.", "stream")
            elif not self._asked.get("stream"):
                if case.fault != "nostream":
                    self._upstream.mixed.append(f"{case} came without stream")
                await self._delivery.json(200, chat_completion(case))
            else:
                await self._stream(case, chat_events(case, usage=usage), lambda: chat_completion(case))
        elif path == "/v1/responses":
            await self._stream(case, response_events(case), lambda: response_object(case))
        else:
            await self._relayed(case)

    async def _relayed(self, case: Case) -> None:
        """Respond with a binary body."""
        await self._delivery.fail_early(case)
        body = case.data
        if self._head.method == "HEAD":
            self._delivery.head(200, "application/x-soak", [f"Content-Length: {len(body)}"])
            await self._writer.drain()
            return
        await self._delivery.send(case, "application/x-soak", body)

    async def _refuse(self, case: Case, message: str, param: str) -> None:
        error = {**case.error(), "message": f"{message} {case.token}", "param": param, "code": None}
        await self._delivery.json(400, {"error": error})

    async def _stream(self, case: Case, events: list[bytes], whole: Callable[[], object]) -> None:
        await self._delivery.fail_early(case)
        if case.fault in ("s429", "s500"):
            await self._delivery.json(int(case.fault[1:]), {"error": case.error()})
        elif case.fault == "plain":
            await self._delivery.json(200, whole())
        else:
            events = spelled(case, events)
            if case.fault == "early":
                events = events[: len(events) // 2]
            await self._delivery.send(case, "text/event-stream", b"".join(events))

    async def _upload(self, case: Case) -> None:
        self._upstream.uploads.add(case.token)
        if case.fault == "early":
            await self._delivery.json(413, {"error": case.error()})
            raise Dropped
        if case.fault in ("torn", "reset"):
            await self._reader.read(1000)
            await self._delivery.break_off(case.fault)
        digest = hashlib.sha256()
        slow = case.fault == "drip"

        async def taken(data: bytes) -> None:
            digest.update(data)
            if slow:
                await asyncio.sleep(0.005)

        await read_body(self._reader, self._head, taken)
        await self._delivery.fail_early(case)
        status = {"s500": 500, "s429": 429}.get(case.fault, 200)
        await self._delivery.json(status, {"token": case.token, "sha256": digest.hexdigest()})

    async def _session(self, case: Case) -> None:
        reader, writer, fault = self._reader, self._writer, case.fault
        await self._delivery.fail_early(case)
        if fault == "s429":
            await self._delivery.json(429, {"error": case.error()})
            return
        writer.write(switching(self._head.get("sec-websocket-key") or ""))
        for number in range(case.count):
            opcode, payload = await read_frame(reader)
            if opcode == CLOSE:
                break
            writer.write(frame(TEXT, f"{case.token} ".encode() + payload, masked=False))
            await writer.drain()
            if fault == "torn" and number == case.count // 2:
                raise Dropped
            if fault == "drip":
                await asyncio.sleep(0.05)
        if fault == "early":
            writer.write(frame(CLOSE, b"\x0f\xa1" + case.token.encode(), masked=False))
            await writer.drain()
            await reader.read(1000)
        else:
            opcode, payload = await read_frame(reader)
            writer.write(frame(opcode, payload, masked=False))
            await writer.drain()
        raise Dropped
