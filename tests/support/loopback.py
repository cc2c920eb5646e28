"""Loopback sockets for tests: scripted upstreams, raw clients, and a proxy between them.

Scripts are coroutines over a :class:`Stream`, so a test states byte for byte what each side does and waits
for events instead of sleeping.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from stream_proxy import ProxyResource, ProxySite
from stream_proxy.mock import mock_site
from stream_proxy.request_log import RequestLog
from tests.support.payloads import CHAT
from tests.support.wire import Headers, Message, Stream, Waiters, all_gone, read_response, send_request

reactor: Any = _reactor

#: Waiting for what has no event: turns of the reactor, and then the interval.
_BUSY_TURNS, _POLL_SECONDS = 50, 0.001

Script = Callable[[Stream], Coroutine[Any, Any, None]]


@dataclass
class Upstream:
    """A scripted upstream: every connection runs `script` once."""

    script: Script
    port: int = 0
    connections: list[Stream] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    scheme: str = "http"

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def factory(self) -> IProtocolFactory:
        """Return a factory of connections that run the script; an EOF in it is not a failure."""
        upstream = self

        class Connection(Stream):
            def connectionMade(self) -> None:
                upstream.connections.append(self)
                done = Deferred.fromCoroutine(upstream.script(self))
                done.addErrback(lambda failure: failure.trap(EOFError) and None)
                done.addErrback(upstream.failures.append)

        factory = Factory.forProtocol(Connection)
        factory.noisy = False
        return factory


@implementer(ILogObserver)
class Lines:
    """A log observer that keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._news = Waiters()

    def __call__(self, event: LogEvent) -> None:
        self.lines.append(event.get("line") or event["message"])
        self._news.wake()

    async def match(self, pattern: str) -> str:
        """Wait for a line that matches, and return it."""
        while True:
            for line in self.lines:
                if re.search(pattern, line):
                    return line
            await self._news.wait()


class LoopbackTestCase(TestCase):
    """Servers, clients and proxies that are closed at the end of the test."""

    #: Seconds; only a guard against tests that hang, since a loaded machine is slow.
    timeout = 120

    async def listen(self, factory: IProtocolFactory, tls: CertificateOptions | None = None) -> int:
        """Serve `factory` on an ephemeral port of 127.0.0.1, over TLS if there is a context for it."""
        port: IListeningPort
        if tls is None:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, factory, tls, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)  # type: ignore[attr-defined]

    async def upstream(self, script: Script, tls: CertificateOptions | None = None) -> Upstream:
        """Start a scripted upstream; an exception in its script, other than EOF, fails the test."""
        upstream = Upstream(script, scheme="http" if tls is None else "https")
        upstream.port = await self.listen(upstream.factory(), tls)

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
        """Start a proxy in front of `upstream_url` and return its port; `kwargs` go to ProxyResource."""
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

    async def mock(self, *, streams_only: bool = False) -> str:
        """Start the mock upstream and return its base URL."""
        site = mock_site(reactor, streams_only=streams_only)
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
        """Open a raw connection to a port of 127.0.0.1."""
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
        """Send one request on a connection of its own and return the response."""
        stream = await self.client(port)
        send_request(stream, method, target, body, headers)
        return await read_response(stream, method)


async def turns(count: int = 3) -> None:
    """Let the reactor iterate a few times, where there is no event to wait for."""
    for _ in range(count):
        turn: Deferred[None] = Deferred()
        reactor.callLater(0, turn.callback, None)
        await turn


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that has no event; what takes long is not waited for in a busy loop."""
    for _ in range(_BUSY_TURNS):
        if true():
            return
        await turns(1)
    while not true():
        await deferLater(reactor, _POLL_SECONDS)


def in_thread(call: Callable[[], Any]) -> Awaitable[Any]:
    """Run a blocking client beside the reactor."""
    from twisted.internet.threads import deferToThread

    return deferToThread(call)
