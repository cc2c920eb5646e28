"""Delivery of the upstream's responses, whole or in pieces, and their faults."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct

from kits.soak.cases import Case

_JSON = "application/json"


class Dropped(Exception):
    """The connection has to end here."""


class Delivery:
    """The upstream's end of one connection, which sends responses and breaks them off."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def json(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.head(status, _JSON, [f"Content-Length: {len(body)}"])
        self._writer.write(body)
        await self._writer.drain()

    async def fail_early(self, case: Case) -> None:
        """Perform the faults that precede a response."""
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

    async def send(self, case: Case, media: str, body: bytes) -> None:
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
        self.head(200, media, fields)
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
            await self.break_off(fault)
        if framing == "chunked":
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        if framing == "close" or fault == "drop":
            raise Dropped

    async def break_off(self, fault: str) -> None:
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

    def head(self, status: int, media: str, fields: list[str]) -> None:
        lines = [f"HTTP/1.1 {status} Soaked", f"Content-Type: {media}", *fields, "", ""]
        self._writer.write("\r\n".join(lines).encode())


def framing_of(case: Case) -> str:
    """Return the framing of a response, which marks its end."""
    if case.fault == "badchunk":
        return "chunked"
    if case.fault in ("drop", "torn", "reset", "stalled"):
        return case.chance.choice(["chunked", "length"])
    return case.chance.choice(["chunked", "chunked", "length", "close"])


def spelled(case: Case, events: list[bytes]) -> list[bytes]:
    """Return the same events in one of the spellings that servers use."""
    style = case.chance.randrange(4)
    if style == 1:
        return [event.replace(b"\n", b"\r\n") for event in events]
    if style == 2:
        return [b": ping\n\n" + event for event in events]
    if style == 3:
        return [b"id: 1\n" + event.replace(b"data: ", b"data:", 1) for event in events]
    return events
