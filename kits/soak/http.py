"""HTTP/1.1, as far as both ends need it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Taken = Callable[[bytes], Awaitable[None]]


class Torn(Exception):
    """A message that ended early; `body` is the part of its body that arrived."""

    def __init__(self, head: Head | None, body: bytes) -> None:
        super().__init__("the message ended before its end")
        self.head = head
        self.body = body


@dataclass(frozen=True)
class Head:
    """The head of a request or a response."""

    start: str
    fields: tuple[tuple[str, str], ...]

    @property
    def method(self) -> str:
        """The method of a request."""
        return self.start.split(" ")[0]

    @property
    def target(self) -> str:
        """The target of a request."""
        return self.start.split(" ")[1]

    @property
    def status(self) -> int:
        """The status of a response."""
        return int(self.start.split(" ")[1])

    def get(self, name: str) -> str | None:
        """Return the value of a field, named in lower case."""
        return next((value for key, value in self.fields if key == name), None)


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """Read the next head; return ``None`` if the connection was closed in order before it.

    :raises ConnectionError: if it ended in another way.
    """
    try:
        data = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise ConnectionError(f"ended in a head: {error.partial[:80]!r}") from None
        return None
    start, *lines = data.decode("latin-1").split("\r\n")[:-2]
    pairs = (line.partition(":") for line in lines)
    return Head(start, tuple((name.lower(), value.strip()) for name, _, value in pairs))


async def read_body(
    reader: asyncio.StreamReader, head: Head, taken: Taken | None = None, *, until_close: bool = False
) -> bytes:
    """Read the body that follows `head`; `taken`, if given, receives it piece by piece instead of the caller.

    :param until_close: a body without a length ends with the connection, as that of a response.
    :raises Torn: if it ended early.
    """
    parts: list[bytes] = []

    async def keep(data: bytes) -> None:
        parts.append(data)

    take = keep if taken is None else taken
    length = head.get("content-length")
    try:
        if (head.get("transfer-encoding") or "").lower() == "chunked":
            await _chunks(reader, take)
        elif length is not None:
            await _exactly(reader, int(length), take)
        elif until_close:
            while data := await reader.read(65536):
                await take(data)
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        raise Torn(head, b"".join(parts)) from None
    return b"".join(parts)


async def _exactly(reader: asyncio.StreamReader, size: int, take: Taken) -> None:
    while size:
        data = await reader.read(min(size, 65536))
        if not data:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(data)
        await take(data)


async def _chunks(reader: asyncio.StreamReader, take: Taken) -> None:
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        await _exactly(reader, size, take)
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk without its end")
        if not size:
            return
