"""The upstream: it answers what the case of each request says, and fails as that says."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import socket
import struct
from collections.abc import Callable

from kits.soak.cases import (
    Case,
    chat_answer,
    chat_events,
    response_answer,
    response_events,
    service_events,
)
from kits.soak.frames import CLOSE, TEXT, accept, frame, read_frame
from kits.soak.http import Head, Torn, read_body, read_head

_JSON = "application/json"
_GONE = (ConnectionError, asyncio.IncompleteReadError, TimeoutError)


class Dropped(Exception):
    """The connection is to end here."""


class Upstream:
    """Listens on a port of its own.

    :ivar busy: how many requests are being answered.
    :ivar mixed: requests whose head and body were not of the same case.
    :ivar uploads: the tokens of the uploads that have come.
    """

    def __init__(self) -> None:
        self.busy = 0
        self.requests = 0
        self.mixed: list[str] = []
        self.uploads: set[str] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; the port is returned."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**17, backlog=4096)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._writers)

    def close_connections(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.close()

    async def stop(self) -> None:
        """End everything."""
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
                    await Exchange(self, reader, writer, head).answer()
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
    """One request and its answer."""

    def __init__(
        self, upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: Head
    ) -> None:
        self._upstream = upstream
        self._reader = reader
        self._writer = writer
        self._head = head
        self._asked: dict[str, object] = {}

    async def answer(self) -> None:
        """Answer it, or fail."""
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
                await self._json(200, chat_answer(case))
            else:
                await self._stream(case, chat_events(case, usage=usage), lambda: chat_answer(case))
        elif path == "/v1/responses":
            await self._stream(case, response_events(case), lambda: response_answer(case))
        else:
            await self._relayed(case)

    # Whole answers

    async def _relayed(self, case: Case) -> None:
        """A body without a meaning."""
        await self._fail_early(case)
        body = case.data
        if self._head.method == "HEAD":
            self._write_head(200, "application/x-soak", [f"Content-Length: {len(body)}"])
            await self._writer.drain()
            return
        await self._deliver(case, "application/x-soak", body)

    async def _refuse(self, case: Case, message: str, param: str) -> None:
        error = {**case.error(), "message": f"{message} {case.token}", "param": param, "code": None}
        await self._json(400, {"error": error})

    async def _json(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self._write_head(status, _JSON, [f"Content-Length: {len(body)}"])
        self._writer.write(body)
        await self._writer.drain()

    async def _fail_early(self, case: Case) -> None:
        """What goes wrong before there is an answer."""
        fault, writer = case.fault, self._writer
        if fault == "close":
            raise Dropped
        if fault == "garbage":
            writer.write(f"SSH-2.0-{case.token}\r\n\r\n".encode())
            await writer.drain()
            raise Dropped
        if fault == "silent":
            await self._reader.read(1)  # until the proxy gives up
            raise Dropped

    async def _stream(self, case: Case, events: list[bytes], whole: Callable[[], object]) -> None:
        await self._fail_early(case)
        if case.fault in ("s429", "s500"):
            await self._json(int(case.fault[1:]), {"error": case.error()})
        elif case.fault == "plain":
            await self._json(200, whole())
        else:
            events = spelled(case, events)
            if case.fault == "early":
                events = events[: len(events) // 2]
            await self._deliver(case, "text/event-stream", b"".join(events))

    # Pieces

    async def _deliver(self, case: Case, media: str, body: bytes) -> None:
        chance, fault, writer = case.chance, case.fault, self._writer
        fields = [f"X-Token: {case.token}"]
        if fault == "gzip":
            body = gzip.compress(body, 1, mtime=0)
            fields.append("Content-Encoding: gzip")
        elif fault == "br":
            fields.append("Content-Encoding: br")
        framing = framing_of(case)
        fields += {
            "chunked": ["Transfer-Encoding: chunked"],
            "length": [f"Content-Length: {len(body)}"],
            "close": ["Connection: close"],
        }[framing]
        self._write_head(200, media, fields)
        broken = fault in ("torn", "reset", "badchunk", "stalled")
        if broken:
            body = body[: max(1, len(body) // 2)]
        step = max(1, len(body) // chance.choice([1, 2, 5, 20]) + 1)
        for start in range(0, len(body), step):
            piece = body[start : start + step]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
            await writer.drain()
            if fault == "drip":
                await asyncio.sleep(0.05 + 0.1 * chance.random())
        if broken:
            await self._break(fault)
        if framing == "chunked":
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        if framing == "close" or fault == "drop":
            raise Dropped

    async def _break(self, fault: str) -> None:
        writer = self._writer
        if fault == "stalled":
            await self._reader.read(1)
        elif fault == "badchunk":
            writer.write(b"zz\r\nno chunk\r\n")
            await writer.drain()
        elif fault == "reset":
            await asyncio.sleep(0.05)
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        raise Dropped

    def _write_head(self, status: int, media: str, fields: list[str]) -> None:
        lines = [f"HTTP/1.1 {status} Soaked", f"Content-Type: {media}", *fields, "", ""]
        self._writer.write("\r\n".join(lines).encode())

    # Uploads

    async def _upload(self, case: Case) -> None:
        self._upstream.uploads.add(case.token)
        if case.fault == "early":
            await self._json(413, {"error": case.error()})
            raise Dropped
        if case.fault in ("torn", "reset"):
            await self._reader.read(1000)
            await self._break(case.fault)
        digest = hashlib.sha256()
        slow = case.fault == "drip"

        async def taken(data: bytes) -> None:
            digest.update(data)
            if slow:
                await asyncio.sleep(0.005)

        await read_body(self._reader, self._head, taken)
        await self._fail_early(case)
        status = {"s500": 500, "s429": 429}.get(case.fault, 200)
        await self._json(status, {"token": case.token, "sha256": digest.hexdigest()})

    # Sessions

    async def _session(self, case: Case) -> None:
        reader, writer, fault = self._reader, self._writer, case.fault
        await self._fail_early(case)
        if fault == "s429":
            await self._json(429, {"error": case.error()})
            return
        key = self._head.get("sec-websocket-key") or ""
        lines = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept(key)}")
        writer.write("\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode())
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


def framing_of(case: Case) -> str:
    """How the end of an answer is told."""
    if case.fault == "badchunk":
        return "chunked"
    if case.fault in ("drop", "torn", "reset", "stalled"):
        return case.chance.choice(["chunked", "length"])
    return case.chance.choice(["chunked", "chunked", "length", "close"])


def spelled(case: Case, events: list[bytes]) -> list[bytes]:
    """The same events, spelled in one of the ways that servers have."""
    style = case.chance.randrange(4)
    if style == 1:
        return [event.replace(b"\n", b"\r\n") for event in events]
    if style == 2:
        return [b": ping\n\n" + event for event in events]
    if style == 3:
        return [b"id: 1\n" + event.replace(b"data: ", b"data:", 1) for event in events]
    return events
