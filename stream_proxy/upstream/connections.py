"""Connections to one upstream: how to reach it, which are idle, and how many may be in use."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import HTTPConnectionPool

from stream_proxy.transport.dead_path import PathWatch
from stream_proxy.upstream.pool import PooledEndpoint, UpstreamPool
from stream_proxy.upstream.response import UpstreamResponse
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
        self,
        reactor: Any,
        route: ResolvedRoute,
        pool: HTTPConnectionPool,
        slots: Slots,
        connect_seconds: float,
    ) -> None:
        self.clock: IReactorTime = reactor
        self.route = route
        self.pool = pool
        self.slots = slots
        self.connect_seconds = connect_seconds
        self.endpoint = PooledEndpoint(route.requests)
        #: Watches over the connections.
        self.paths = PathWatch(reactor)
        #: Requests that wait for a slot.
        self.queued: set[Deferred[UpstreamResponse]] = set()

    def make_room(self) -> None:
        """Drop idle connections, which count too, so that one more can be opened."""
        if isinstance(self.pool, UpstreamPool):
            self.pool.keep(self.route.key, self.slots.limit - self.slots.in_use)
