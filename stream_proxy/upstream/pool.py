"""Pool of idle upstream connections."""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from stream_proxy.transport.timers import Timeout
from stream_proxy.upstream.connection import UpstreamConnection


class UpstreamPool:
    """Pool that keeps many connections, for a short time. Several upstreams may share one.

    :param reactor: the reactor.
    """

    #: The most idle connections for one key.
    most_idle = 256
    #: Seconds; less than most servers keep an idle connection.
    idle_seconds = 30.0

    def __init__(self, reactor: IReactorTime) -> None:
        self._clock = reactor
        self._idle: dict[Hashable, list[UpstreamConnection]] = {}
        self._sweep = Timeout(reactor)
        self._closed = False

    def idle(self, key: Hashable) -> list[UpstreamConnection]:
        """Return the idle connections for `key`, the longest idle first."""
        return list(self._idle.get(key, ()))

    def count_of(self, key: Hashable) -> int:
        """How many connections are idle for `key`."""
        return len(self._idle.get(key, ()))

    @property
    def count(self) -> int:
        """How many connections are idle, for all keys together."""
        return sum(map(len, self._idle.values()))

    def take(self, key: Hashable) -> UpstreamConnection | None:
        """Return the idle connection that was used last, if it can be used; it is no longer kept."""
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            connection.drop()
        return None

    def keep(self, key: Hashable, connection: UpstreamConnection) -> None:
        """Keep a connection that has become idle."""
        if self._closed:
            connection.drop()
            return
        idle = self._idle.setdefault(key, [])
        connection.idle_since = self._clock.seconds()
        idle.append(connection)
        if len(idle) > self.most_idle:
            idle.pop(0).drop()
        if not self._sweep.running:
            self._sweep.start(self.idle_seconds, self._expire)

    def forget(self, key: Hashable, connection: UpstreamConnection) -> None:
        """Keep a connection no longer, because it has ended."""
        idle = self._idle.get(key)
        if idle is not None and connection in idle:
            idle.remove(connection)
            self._tidy()

    def trim(self, key: Hashable, count: int) -> None:
        """Drop the longest idle connections for `key`, until no more than `count` are left."""
        idle = self._idle.get(key, [])
        while len(idle) > max(0, count):
            idle.pop(0).drop()
        self._tidy()

    def close(self) -> Deferred[object]:
        """Drop idle connections, and from now on those that become idle."""
        self._closed = True
        return self.drop_idle()

    def drop_idle(self) -> Deferred[object]:
        """Drop the idle connections; the Deferred fires when they have ended."""
        dropped = [connection.closed() for idle in self._idle.values() for connection in idle]
        self._idle.clear()
        self._sweep.stop()
        gone: Deferred[object] = gatherResults(dropped).addCallback(lambda _: None)
        return gone

    def _expire(self) -> None:
        now = self._clock.seconds()
        for idle in self._idle.values():
            while idle and now - idle[0].idle_since >= self.idle_seconds:
                idle.pop(0).drop()
        self._tidy()
        oldest = min((idle[0].idle_since for idle in self._idle.values()), default=None)
        if oldest is not None:
            self._sweep.start(oldest + self.idle_seconds - now, self._expire)

    def _tidy(self) -> None:
        for key in [key for key, idle in self._idle.items() if not idle]:
            del self._idle[key]
        if not self._idle:
            self._sweep.stop()
