"""HTTP on the wire: a connection that is read by waiting, and messages written and parsed byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

JSON = ("Content-Type", "application/json")
GET = b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n"
UPLOAD = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
CHUNKED_UPLOAD = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
Headers = Iterable[tuple[str, str]]


class Waiters:
    """Coroutines that wait for the next piece of news."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    async def wait(self) -> None:
        """Wait for the next call of :meth:`wake`."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        await waiter

    def wake(self) -> None:
        """Resume all who wait now."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)


class Stream(Protocol):
    """One connection. A test reads from it by waiting for the bytes it expects."""

    transport: Any

    def __init__(self) -> None:
        self.buffer = bytearray()
        #: Why the connection ended, once it has.
        self.lost: Failure | None = None
        #: The number of bytes received so far, including those already read.
        self.received = 0
        self._news = Waiters()

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        self.received += len(data)
        self._news.wake()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost = reason
        self._news.wake()

    async def _more(self) -> None:
        if self.lost is not None:
            raise EOFError(f"the connection ended; in the buffer: {bytes(self.buffer)!r}")
        await self._news.wait()

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.transport.write(data)

    def chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked body; an empty one ends the body."""
        self.write(b"%x\r\n%b\r\n" % (len(data), data))

    def close(self) -> None:
        """Close the connection after everything written has been sent."""
        self.transport.loseConnection()

    def abort(self) -> None:
        """Reset the connection."""
        self.transport.abortConnection()

    async def until(self, end: bytes) -> bytes:
        """Return everything up to and including `end`."""
        while (position := self.buffer.find(end)) < 0:
            await self._more()
        return self._take(position + len(end))

    async def exactly(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        while len(self.buffer) < count:
            await self._more()
        return self._take(count)

    async def some(self) -> bytes:
        """Return everything buffered, waiting for at least one byte."""
        while not self.buffer:
            await self._more()
        return self._take(len(self.buffer))

    async def rest(self) -> bytes:
        """Return everything until the connection ends."""
        while self.lost is None:
            await self._more()
        return self._take(len(self.buffer))

    async def gone(self) -> Failure:
        """Wait until the connection ends, discarding what arrives before, and return the reason."""
        await self.rest()
        assert self.lost is not None
        return self.lost

    def _take(self, count: int) -> bytes:
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken


async def all_gone(streams: Iterable[Stream]) -> None:
    """Wait until all these connections have ended."""
    for stream in streams:
        await stream.gone()


@dataclass
class Message:
    """A request or a response as it was on the wire."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    #: Whether the body reached the end that its framing announced.
    complete: bool = False

    def all(self, name: str) -> list[str]:
        """Return all values of a header field."""
        return [value for field_name, value in self.headers if field_name.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """Return the last value of a header field."""
        values = self.all(name)
        return values[-1] if values else None

    @property
    def status(self) -> int:
        """The status of a response."""
        return int(self.line.split(" ")[1])

    @property
    def method(self) -> str:
        """The method of a request."""
        return self.line.split(" ")[0]

    @property
    def target(self) -> str:
        """The target of a request."""
        return self.line.split(" ")[1]

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.body)


async def read_head(stream: Stream) -> Message:
    """Read the head of a message."""
    raw = (await stream.until(b"\r\n\r\n")).decode("latin-1")
    line, *fields = raw[:-4].split("\r\n")
    pairs = [text.split(":", 1) for text in fields]
    return Message(line, [(name, value.strip()) for name, value in pairs])


async def read_body(stream: Stream, message: Message, *, closes: bool) -> Message:
    """Read the body that follows a head.

    :param closes: a body without framing lasts until the connection closes; otherwise there is none.
    """
    length = message.get("content-length")
    parts: list[bytes] = []
    try:
        if message.get("transfer-encoding") == "chunked":
            while size := int((await stream.until(b"\r\n")).split(b";")[0], 16):
                parts.append(await stream.exactly(size))
                await stream.exactly(2)
            await stream.until(b"\r\n")
        elif length is not None:
            parts.append(await stream.exactly(int(length)))
        elif closes:
            parts.append(await stream.rest())
        message.complete = True
    except EOFError:
        parts.append(bytes(stream.buffer))
    message.body = b"".join(parts)
    return message


async def read_request(stream: Stream) -> Message:
    """Read a whole request."""
    return await read_body(stream, await read_head(stream), closes=False)


async def read_response(stream: Stream, method: str = "POST") -> Message:
    """Read a whole response to a request with `method`."""
    message = await read_head(stream)
    if method == "HEAD" or message.status in (204, 304) or message.status < 200:
        message.complete = True
        return message
    return await read_body(stream, message, closes=True)


def _head(line: str, headers: Headers) -> bytes:
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in headers), "", ""]).encode("latin-1")


def head(status: int = 200, headers: Headers = (), reason: str = "OK") -> bytes:
    """Return the bytes of a response head."""
    return _head(f"HTTP/1.1 {status} {reason}", headers)


def event_stream_head(headers: Headers = ()) -> bytes:
    """Return the head of a chunked event stream."""
    return head(200, [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked"), *headers])


def respond(stream: Stream, status: int, body: bytes, headers: Headers = ()) -> None:
    """Send a whole response with a ``Content-Length``."""
    stream.write(head(status, [*headers, ("Content-Length", str(len(body)))]) + body)


def send_request(
    stream: Stream, method: str, target: str, body: object = None, headers: Headers = ()
) -> None:
    """Send a request; a body that is not bytes is sent as JSON, with a ``Content-Type``."""
    fields = [("Host", "localhost"), *headers]
    data = b""
    if isinstance(body, bytes):
        data = body
    elif body is not None:
        data = json.dumps(body).encode()
        fields.append(JSON)
    if body is not None:
        fields.append(("Content-Length", str(len(data))))
    stream.write(_head(f"{method} {target} HTTP/1.1", fields) + data)
