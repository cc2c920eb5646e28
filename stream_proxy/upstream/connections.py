"""Connections to one upstream: how to reach it, which are idle, and how many may be in use."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from stream_proxy.transport.dead_path import PathWatch
from stream_proxy.upstream.connection import UpstreamConnection
from stream_proxy.upstream.failures import ConnectLimitError
from stream_proxy.upstream.pool import UpstreamPool
from stream_proxy.upstream.route import ResolvedRoute
from stream_proxy.upstream.slots import Slots


class Connections:
    """Everything that the requests to one upstream share.

    :param reactor: the reactor.
    :param route: how to reach the upstream.
    :param pool: the idle connections.
    :param slots: the connections that may be in use at once.
    :param connect_seconds: the limit for DNS, TCP and TLS together, a proxy on the way included.
    """

    def __init__(
        self, reactor: Any, route: ResolvedRoute, pool: UpstreamPool, slots: Slots, connect_seconds: float
    ) -> None:
        self.clock: IReactorTime = reactor
        self.route = route
        self.pool = pool
        self.slots = slots
        self.connect_seconds = connect_seconds
        self.endpoint = route.requests
        #: Watches over the connections.
        self.paths = PathWatch(reactor)

    def take(self) -> UpstreamConnection | None:
        """Return an idle connection, if there is one."""
        return self.pool.take(self.route.key)

    def keep(self, connection: UpstreamConnection) -> None:
        """Keep a connection that has become idle."""
        self.pool.keep(self.route.key, connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """Forget an idle connection that has ended."""
        self.pool.forget(self.route.key, connection)

    def make_room(self) -> None:
        """Drop idle connections, which count too, so that one more can be opened."""
        self.pool.trim(self.route.key, self.slots.limit - self.slots.in_use)

    def connect(self) -> Deferred[UpstreamConnection]:
        """Open a connection, TLS included. Cancelling the Deferred drops it.

        :raises ConnectLimitError: through the Deferred: it took too long.
        """
        return Deferred.fromCoroutine(self._connect())

    async def _connect(self) -> UpstreamConnection:
        waiting: Deferred[Any] = self.endpoint.connect(_Connecting(self))
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            waiting.cancel()

        limit = self.clock.callLater(self.connect_seconds, expire)
        connection: UpstreamConnection | None = None
        try:
            connection = await waiting
            waiting = connection.ready
            await waiting
            return connection
        except BaseException:
            if connection is not None and connection.transport is not None:
                connection.drop()
            if expired:
                raise ConnectLimitError() from None
            raise
        finally:
            if limit.active():
                limit.cancel()


class _Connecting(Factory):
    noisy = False

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def buildProtocol(self, addr: IAddress | None) -> UpstreamConnection:
        connections = self._connections
        return UpstreamConnection(connections, connections.route.peer.name)
