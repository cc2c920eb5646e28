"""Connections of one client to the proxy."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from kits.soak.frames import KEY
from kits.soak.http import Head, Taken, Torn, read_body, read_head


@dataclass(frozen=True)
class Response:
    """A response as received: without a head if nothing arrived, `torn` if it broke off."""

    head: Head | None
    body: bytes = b""
    torn: bool = False

    @property
    def status(self) -> int:
        """The status; 0 if there was no response."""
        return 0 if self.head is None else self.head.status


class Connection:
    """A connection to one port, for one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.requests = 0
        #: Whether the connection accepts another request.
        self.usable = True

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Open a connection."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**17))

    async def send(self, data: bytes) -> None:
        """Write, as fast as the proxy reads."""
        self.requests += 1
        self.writer.write(data)
        await self.writer.drain()

    async def response(self, method: str = "POST", taken: Taken | None = None) -> Response:
        """Read the next response."""
        try:
            head = await read_head(self.reader)
        except ConnectionError:
            head = None
        if head is None:
            self.usable = False
            return Response(None)
        if "close" in (head.get("connection") or "").lower():
            self.usable = False
        if method == "HEAD":
            return Response(head)
        if head.get("content-length") is None and head.get("transfer-encoding") is None:
            self.usable = False
        try:
            return Response(head, await read_body(self.reader, head, taken, until_close=True))
        except Torn as torn:
            self.usable = False
            return Response(head, torn.body, torn=True)

    def leave(self) -> None:
        """Reset the connection."""
        self.usable = False
        self.writer.transport.abort()

    async def close(self) -> None:
        """Close the connection in order."""
        self.usable = False
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass
class Connections:
    """The connections that one client keeps, one for each port."""

    kept: dict[int, Connection] = field(default_factory=dict)

    async def take(self, port: int) -> Connection:
        """Return a kept connection, or a new one."""
        kept = self.kept.pop(port, None)
        if kept is not None and kept.usable and not kept.reader.at_eof():
            return kept
        if kept is not None:
            await kept.close()
        return await Connection.open(port)

    async def give_back(self, port: int, connection: Connection) -> None:
        """Keep a connection if it can be reused."""
        if connection.usable and port not in self.kept:
            self.kept[port] = connection
        else:
            await connection.close()

    async def close(self) -> None:
        """Close all connections."""
        for connection in self.kept.values():
            await connection.close()
        self.kept.clear()


def request(
    method: str, target: str, case: object, body: bytes | None = None, *, fields: tuple[str, ...] = ()
) -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: soak.example", f"X-Soak: {case}", *fields]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def handshake(target: str, case: object) -> bytes:
    """Return the bytes of a WebSocket handshake."""
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}")
    return request("GET", target, case, fields=(*upgrade, "Sec-WebSocket-Version: 13"))
