"""HTTP client that does not interfere: one upstream, its connections, its time limits.

treq carries the request to connections of ours, or to an agent or a pool of the library's user. None may
change anything on the way: target, method, headers and body go out as they are handed in, and nothing is
followed, decoded or remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from stream_proxy.errors import APIError, no_connection_free
from stream_proxy.http.access import Access
from stream_proxy.http.headers import RawHeader
from stream_proxy.http.url import UpstreamURL
from stream_proxy.limits import Limits
from stream_proxy.upstream.asking import Asker, Asking
from stream_proxy.upstream.connections import Connections
from stream_proxy.upstream.failures import request_failure
from stream_proxy.upstream.pool import UpstreamPool
from stream_proxy.upstream.response import Drain, UpstreamResponse
from stream_proxy.upstream.route import ResolvedRoute, Route
from stream_proxy.upstream.slots import Slots
from stream_proxy.upstream.treq_carrier import Carrier, PooledAgent, deferred
from stream_proxy.upstream.twisted_client.attempt import Attempt
from stream_proxy.upstream.upload import Outgoing


class Upstream:
    """One upstream base URL, and what is open towards it.

    :param reactor: the reactor.
    :param url: where requests go; its path is a prefix of every target.
    :param limits: how long a connection may take to be made, how many may be in use and how many requests may
        wait for one.
    :param pool: connections to share; by default a pool of its own, which :meth:`close` empties. One of
        Twisted's makes each request slower.
    :param agent: an agent to send requests through. Requests then are what it makes of them, and the route,
        the number of connections, responses that come before an upload is over, and connections that died
        while idle, are its own affair.
    :param route: how to get there.
    :param access: the key to call the upstream with.
    :raises ValueError: if `route` leads nowhere.
    """

    def __init__(
        self,
        reactor: Any,
        url: UpstreamURL,
        limits: Limits | None = None,
        *,
        pool: UpstreamPool | HTTPConnectionPool | None = None,
        agent: IAgent | None = None,
        route: Route | None = None,
        access: Access | None = None,
    ) -> None:
        limits = limits or Limits()
        self.url = url
        self.access = access if access is not None else Access()
        self.connect_seconds = limits.connect_seconds
        own = pool if isinstance(pool, UpstreamPool) else UpstreamPool(reactor)
        self._own_pool = own if own is not pool else None
        self._sender = agent if agent is not None else pool if isinstance(pool, HTTPConnectionPool) else None
        self._draining: set[Drain] = set()
        self._connections = Connections(
            reactor,
            ResolvedRoute(reactor, url, route or Route(), limits.connect_seconds),
            own,
            Slots(reactor, limits.max_upstream_connections, limits.max_upstream_waiting, url.origin),
            limits.connect_seconds,
        )
        self._carrier = Carrier(PooledAgent(self._connections, url.netloc, self.access))

    @property
    def active(self) -> int:
        """How many connections are in use."""
        return self._connections.slots.in_use

    @property
    def idle(self) -> int:
        """How many connections are kept for the next request."""
        return self._connections.idle

    @property
    def waiting(self) -> int:
        """How many requests wait for a connection."""
        return self._connections.slots.waiting

    def request(
        self, method: bytes, target: bytes, headers: Iterable[RawHeader], body: Outgoing | None
    ) -> Deferred[UpstreamResponse]:
        """Send one request, as :meth:`ask` does.

        :return: fires with the response as soon as its head is in. Cancelling it drops the connection.
        :raises APIError: through the Deferred, for every failure but a cancellation.
        """
        return deferred(lambda asker: self.ask(method, target, headers, body, asker))

    def ask(
        self,
        method: bytes,
        target: bytes,
        headers: Iterable[RawHeader],
        body: Outgoing | None,
        asker: Asker,
    ) -> Asking:
        """Send one request, as soon as a connection may be used for it.

        :param target: origin form, as the client wrote it; the URL's own path goes before it.
        :param headers: the fields beside ``Host`` and the framing.
        :param body: ``None`` for no body at all. Bytes are sent a second time, on a fresh connection, if a
            reused one turns out to be dead; a producer's never.
        :param asker: told of the response as soon as its head is in, or of the reason why there is none. That
            may be before this returns; then the result is not ``active``.
        :raises ValueError: the method, the target or a field cannot be sent.
        """
        target = self.url.prefix + self.access.target(target)
        fields = self.access.headers(method, headers)
        if self._sender is None:
            return self._carrier.ask(method, target, fields, body, asker)
        raw = Headers()
        raw.addRawHeader(b"Host", self.url.netloc)
        for name, value in fields:
            raw.addRawHeader(name, value)
        attempt = Attempt(self._connections, self._sender, method, target, raw, body)
        attempt.start(self.access, asker)
        return attempt

    def queue_error(self, asking: Asking | None, seconds: float) -> APIError | None:
        """Return the error for a request that has waited so long for a connection; ``None`` if it was sent.

        :param asking: what :meth:`ask` returned.
        """
        return self.never_free(seconds) if asking is not None and asking.queued else None

    def never_free(self, seconds: float) -> APIError:
        """Return the error for having waited so long for a connection."""
        return no_connection_free(self.url.origin, self._connections.slots.limit, seconds)

    def connect(self, factory: IProtocolFactory, begun: Callable[[], None]) -> Deferred[Any]:
        """Open a connection for another protocol than HTTP, without the `agent`.

        :param factory: a factory of an :class:`~.slots.Occupant`, which vacates its slot when it ends.
        :param begun: called once when the connection may be opened.
        :raises APIError: through the Deferred, if too many wait. For other failures see :meth:`explained`.
        """
        return Deferred.fromCoroutine(self._connect(factory, begun))

    async def _connect(self, factory: IProtocolFactory, begun: Callable[[], None]) -> Any:
        connections = self._connections
        slot = await connections.slots.take()
        try:
            begun()
            connections.make_room()
            connection: Any = await connections.route.endpoint.connect(factory)
        except BaseException:
            slot.free()
            raise
        connection.occupy(slot)
        connection.watch_path(connections.paths)
        return connection

    def explained(self, failure: Failure) -> Failure:
        """Return the failure of :meth:`connect` as one of an :class:`APIError`, if the reason is known."""
        return request_failure(failure, self._connections.route.peer, self.connect_seconds)

    def drain(self, response: UpstreamResponse) -> None:
        """Let `response` end within a moment, so that its connection can be reused; else drop it."""
        if not response.ended:
            self._draining.add(Drain(self._connections.clock, response, self._draining.discard))

    def close(self) -> Deferred[object]:
        """Drop idle and draining connections, now and later. Requests under way belong to their callers."""
        for drain in list(self._draining):
            drain.stop()
        if self._own_pool is not None:
            return self._own_pool.close()
        nothing: Deferred[object] = succeed(None)
        return nothing
