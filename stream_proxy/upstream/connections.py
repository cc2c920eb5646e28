"""Connections to one upstream: how to reach it, which are idle, and how many may be in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from stream_proxy.transport.dead_path import PathWatch
from stream_proxy.transport.timers import Timeout
from stream_proxy.upstream.connection import UpstreamConnection
from stream_proxy.upstream.failures import ConnectLimitError
from stream_proxy.upstream.opening import Opening
from stream_proxy.upstream.pool import UpstreamPool
from stream_proxy.upstream.route import ResolvedRoute
from stream_proxy.upstream.slots import Slots

C = TypeVar("C", bound=Opening)


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

    @property
    def idle(self) -> int:
        """How many connections are idle."""
        return self.pool.count_of(self.route.key)

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
        connecting: Deferred[Any] = self.endpoint.connect(_Connecting(self))
        return await self.within_limit(connecting, UpstreamConnection.drop)

    async def within_limit(self, connecting: Deferred[C], drop: Callable[[C], object]) -> C:
        """Return the connection that `connecting` fires with, once its first request may be sent.

        :param drop: ends a connection on which that does not come.
        :raises ConnectLimitError: it took too long.
        """
        waiting: Deferred[Any] = connecting
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            waiting.cancel()

        limit = Timeout(self.clock)
        limit.start(self.connect_seconds, expire)
        connection: C | None = None
        try:
            connection = await connecting
            waiting = connection.ready
            await waiting
            return connection
        except BaseException:
            if connection is not None and connection.transport is not None:
                drop(connection)
            if expired:
                raise ConnectLimitError() from None
            raise
        finally:
            limit.stop()


class _Connecting(Factory):
    noisy = False

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def buildProtocol(self, addr: IAddress | None) -> UpstreamConnection:
        connections = self._connections
        return UpstreamConnection(connections, connections.route.peer.name)
