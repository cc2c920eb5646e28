"""Pool of idle upstream connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.web.client import HTTPConnectionPool
from zope.interface import implementer

from stream_proxy.upstream.connection import UpstreamProtocol


class _Factory(Factory):
    noisy = False

    def __init__(self, quiescent: Callable[[UpstreamProtocol], None]) -> None:
        self._quiescent = quiescent

    def buildProtocol(self, addr: object) -> UpstreamProtocol:
        return UpstreamProtocol(self._quiescent)


@implementer(IStreamClientEndpoint)
class PooledEndpoint:
    """Endpoint with which any ``HTTPConnectionPool`` makes connections of :class:`UpstreamProtocol`.

    :param endpoint: the endpoint to connect to.
    """

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Any:
        return self._endpoint.connect(_Factory(factory._quiescentCallback))


def unwrapped(connection: Any) -> UpstreamProtocol:
    """Return a pool's connection without the wrapper that would send a request again."""
    return getattr(connection, "_clientProtocol", connection)  # type: ignore[no-any-return]


class UpstreamPool(HTTPConnectionPool):
    """Pool that keeps many connections, for a short time, and never sends a request again by itself.

    :param reactor: the reactor.
    """

    retryAutomatically = False
    maxPersistentPerHost = 256
    #: Seconds; less than most servers keep an idle connection.
    cachedConnectionTimeout = 30
    _closed = False

    def close(self) -> Deferred[object]:
        """Drop idle connections, and from now on those that become idle."""
        self._closed = True
        closed: Deferred[object] = self.closeCachedConnections()
        return closed

    def keep(self, key: object, count: int) -> None:
        """Drop the longest idle connections of `key`, until no more than `count` are left."""
        idle = [one for one in self._connections.get(key, ()) if one.state == "QUIESCENT"]
        for connection in idle[: max(0, len(idle) - count)]:
            self._connections[key].remove(connection)
            self._timeouts.pop(connection).cancel()
            connection.abort()

    def _putConnection(self, key: object, connection: Any) -> None:
        if self._closed:
            connection.abort()
        else:
            super()._putConnection(key, connection)
