"""Loopback sockets for tests: scripted upstreams, raw clients, and a proxy between them.

Scripts are coroutines over a :class:`Stream`, so that a test says byte for byte what each side does and waits
for events instead of sleeping.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import ILogObserver, LogEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from stream_proxy import ProxyResource, ProxySite
from stream_proxy.mock import mock_site
from stream_proxy.request_log import RequestLog

reactor: Any = _reactor
JSON = ("Content-Type", "application/json")
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
Headers = Iterable[tuple[str, str]]


class Stream(Protocol):
    """One connection, read by waiting for what is to come."""

    transport: Any

    def __init__(self) -> None:
        self.buffer = bytearray()
        #: Why the connection ended, once it has.
        self.lost: Failure | None = None
        #: All bytes that ever came.
        self.received = 0
        self._waiting: list[Deferred[None]] = []

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        self.received += len(data)
        self._wake()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost = reason
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    async def _more(self) -> None:
        if self.lost is not None:
            raise EOFError(f"the connection ended; in the buffer: {bytes(self.buffer)!r}")
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        await waiter

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.transport.write(data)

    def chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked body; of no bytes: the last one."""
        self.write(b"%x\r\n%b\r\n" % (len(data), data))

    def close(self) -> None:
        """Close in order, after what was written."""
        self.transport.loseConnection()

    def abort(self) -> None:
        """Reset the connection."""
        self.transport.abortConnection()

    async def until(self, end: bytes) -> bytes:
        """Everything up to and with `end`."""
        while (place := self.buffer.find(end)) < 0:
            await self._more()
        return self._take(place + len(end))

    async def exactly(self, count: int) -> bytes:
        """That many bytes."""
        while len(self.buffer) < count:
            await self._more()
        return self._take(count)

    async def some(self) -> bytes:
        """At least one byte, and what came with it."""
        while not self.buffer:
            await self._more()
        return self._take(len(self.buffer))

    async def rest(self) -> bytes:
        """Everything until the connection ends."""
        while self.lost is None:
            await self._more()
        return self._take(len(self.buffer))

    async def gone(self) -> Failure:
        """Wait for the end, whatever comes before it."""
        await self.rest()
        assert self.lost is not None
        return self.lost

    def _take(self, count: int) -> bytes:
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken


@dataclass
class Message:
    """A request or a response as it was on the wire."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    #: The body came to the end that its framing promised.
    complete: bool = False

    def all(self, name: str) -> list[str]:
        """The values of a header field."""
        return [value for field_name, value in self.headers if field_name.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """Its last value."""
        values = self.all(name)
        return values[-1] if values else None

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.line.split(" ")[1])

    @property
    def method(self) -> str:
        """Of a request."""
        return self.line.split(" ")[0]

    @property
    def target(self) -> str:
        """Of a request."""
        return self.line.split(" ")[1]

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


async def read_head(stream: Stream) -> Message:
    """The head of a message."""
    raw = (await stream.until(b"\r\n\r\n")).decode("latin-1")
    line, *fields = raw[:-4].split("\r\n")
    pairs = [text.split(":", 1) for text in fields]
    return Message(line, [(name, value.strip()) for name, value in pairs])


async def read_body(stream: Stream, message: Message, *, closes: bool) -> Message:
    """Its body, as its framing says; `closes`: without framing it goes on until the connection closes."""
    length = message.get("content-length")
    try:
        if message.get("transfer-encoding") == "chunked":
            while size := int((await stream.until(b"\r\n")).split(b";")[0], 16):
                message.body += await stream.exactly(size)
                await stream.exactly(2)
            await stream.until(b"\r\n")
        elif length is not None:
            message.body = await stream.exactly(int(length))
        elif closes:
            message.body = await stream.rest()
        message.complete = True
    except EOFError:
        message.body += bytes(stream.buffer)
    return message


async def read_request(stream: Stream) -> Message:
    """A whole request."""
    return await read_body(stream, await read_head(stream), closes=False)


async def read_response(stream: Stream, method: str = "POST") -> Message:
    """A whole response to a request with `method`."""
    message = await read_head(stream)
    if method == "HEAD" or message.status in (204, 304) or message.status < 200:
        message.complete = True
        return message
    return await read_body(stream, message, closes=True)


def head(status: int = 200, headers: Headers = (), reason: str = "OK") -> bytes:
    """The bytes of a response head."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def respond(stream: Stream, status: int, body: bytes, headers: Headers = ()) -> None:
    """Send a whole response with a ``Content-Length``."""
    stream.write(head(status, [*headers, ("Content-Length", str(len(body)))]) + body)


def event_stream_head(headers: Headers = ()) -> bytes:
    """The head of a chunked event stream."""
    return head(200, [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked"), *headers])


def event(data: object, name: str | None = None) -> bytes:
    """One event, its data as JSON unless it is text."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def chunk(delta: object, finish: str | None = None, **more: object) -> bytes:
    """The event of one chat chunk."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return event({**base, **more})


DONE = b"data: [DONE]\n\n"
HELLO = chunk({"role": "assistant", "content": "Hel"}) + chunk({"content": "lo"}, "stop") + DONE
CHAT_BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
RESPONSES_BODY = {"model": "m", "input": "hi"}

Script = Callable[[Stream], Coroutine[Any, Any, None]]


@dataclass
class Upstream:
    """A scripted upstream: each connection runs `script` from its start."""

    script: Script
    port: int = 0
    connections: list[Stream] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def build(self, _: object) -> Stream:
        """A connection has come in."""
        upstream = self

        class Connection(Stream):
            def connectionMade(self) -> None:
                upstream.connections.append(self)
                done = Deferred.fromCoroutine(upstream.script(self))
                done.addErrback(lambda failure: failure.trap(EOFError) and None)
                done.addErrback(upstream.failures.append)

        return Connection()


@implementer(ILogObserver)
class Lines:
    """The lines of a log."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._waiting: list[Deferred[None]] = []

    def __call__(self, event: LogEvent) -> None:
        self.lines.append(event.get("line") or event["message"])
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    async def match(self, pattern: str) -> str:
        """Wait for a line that matches."""
        while True:
            for line in self.lines:
                if re.search(pattern, line):
                    return line
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            await waiter


class LoopbackTestCase(TestCase):
    """Servers, clients and proxies that are gone when the test is."""

    timeout = 20

    async def listen(self, factory: Any, tls: Any = None) -> int:
        """Serve `factory` on an ephemeral port of 127.0.0.1, over TLS if there is a context for it."""
        port: IListeningPort
        if tls is None:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, factory, tls, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)  # type: ignore[attr-defined]

    async def upstream(self, script: Script, tls: Any = None) -> Upstream:
        """Start a scripted upstream; what its script raises fails the test (an EOF does not)."""
        upstream = Upstream(script, scheme="http" if tls is None else "https")
        factory = Factory.forProtocol(Stream)
        factory.noisy = False
        factory.buildProtocol = upstream.build  # type: ignore[method-assign, assignment]
        upstream.port = await self.listen(factory, tls)

        def finish() -> Deferred[object]:
            for connection in upstream.connections:
                if connection.lost is None:
                    connection.abort()
            for failure in upstream.failures:
                failure.raiseException()
            return Deferred.fromCoroutine(all_gone(upstream.connections))

        self.addCleanup(finish)
        return upstream

    async def proxy(self, upstream_url: str, **kwargs: Any) -> int:
        """Start a proxy in front of `upstream_url`; `kwargs` are ProxyResource's. Its port is returned."""
        kwargs.setdefault("log", RequestLog(observer=cast(Any, lambda _: None)))
        resource = kwargs.pop("resource", ProxyResource)(upstream_url, reactor=reactor, **kwargs)
        site = ProxySite(resource, reactor=reactor, limits=kwargs.get("limits"), log=kwargs["log"])
        port: IListeningPort = reactor.listenTCP(0, site, interface="127.0.0.1")

        async def finish() -> None:
            await maybeDeferred(port.stopListening)
            await site.drain(0)
            await resource.close()

        self.addCleanup(lambda: Deferred.fromCoroutine(finish()))
        return int(port.getHost().port)  # type: ignore[attr-defined]

    async def mock(self) -> str:
        """Start the mock upstream; its base URL is returned."""
        site = mock_site(reactor)
        site.noisy = False
        build = site.buildProtocol
        gone: list[tuple[Any, Deferred[None]]] = []

        def watched(address: IAddress | None) -> Any:
            channel: Any = build(address)
            lost, end = channel.connectionLost, Deferred[None]()
            gone.append((channel, end))

            def connection_lost(reason: Failure) -> None:
                lost(reason)
                end.callback(None)

            channel.connectionLost = connection_lost
            return channel

        async def finish() -> None:
            for channel, end in gone:
                transport = channel._channel.transport
                if end.called or transport is None or transport.protocol is not channel:
                    continue  # it is gone, or has become a WebSocket
                transport.abortConnection()
                await end

        site.buildProtocol = watched  # type: ignore[method-assign]
        self.addCleanup(lambda: Deferred.fromCoroutine(finish()))
        return f"http://127.0.0.1:{await self.listen(site)}"

    async def client(self, port: int) -> Stream:
        """A raw connection to a port of 127.0.0.1."""
        stream = Stream()
        await connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", port), stream)

        def finish() -> Deferred[object]:
            stream.transport.abortConnection()
            return Deferred.fromCoroutine(all_gone([stream]))

        self.addCleanup(finish)
        return stream

    async def request(
        self,
        port: int,
        method: str = "POST",
        target: str = CHAT,
        body: object = None,
        headers: Headers = (),
    ) -> Message:
        """One request on a connection of its own; a body that is no bytes goes as JSON, with its type."""
        stream = await self.client(port)
        send_request(stream, method, target, body, headers)
        return await read_response(stream, method)


def send_request(
    stream: Stream, method: str, target: str, body: object = None, headers: Headers = ()
) -> None:
    """Write a request."""
    fields = [("Host", "client.example"), *headers]
    data = b""
    if isinstance(body, bytes):
        data = body
    elif body is not None:
        data = json.dumps(body).encode()
        fields.append(JSON)
    if body is not None:
        fields.append(("Content-Length", str(len(data))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    stream.write("\r\n".join(lines).encode("latin-1") + data)


async def all_gone(streams: Iterable[Stream]) -> None:
    """Wait until all these connections have ended."""
    for stream in streams:
        await stream.gone()


async def turns(count: int = 3) -> None:
    """Let the reactor run a few times, for what has no event to wait for."""
    for _ in range(count):
        turn: Deferred[None] = Deferred()
        reactor.callLater(0, turn.callback, None)
        await turn


def in_thread(call: Callable[[], Any]) -> Awaitable[Any]:
    """Run a blocking client beside the reactor."""
    from twisted.internet.threads import deferToThread

    return deferToThread(call)
