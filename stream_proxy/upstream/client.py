"""HTTP client that does not interfere: one upstream, its connections, its time limits.

Twisted's ``HTTP11ClientProtocol`` parses and pools, treq carries the request, and neither may change anything
on the way: target, method, headers and body go out as they are handed in, and nothing is followed, decoded,
remembered or sent twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer

from stream_proxy.errors import APIError, no_connection_free
from stream_proxy.http.access import Access
from stream_proxy.http.headers import RawHeader
from stream_proxy.http.url import UpstreamURL
from stream_proxy.limits import Limits
from stream_proxy.upstream.attempt import Attempt
from stream_proxy.upstream.connections import Connections
from stream_proxy.upstream.failures import request_failure
from stream_proxy.upstream.pool import UpstreamPool
from stream_proxy.upstream.response import Drain, UpstreamResponse
from stream_proxy.upstream.route import ResolvedRoute, Route
from stream_proxy.upstream.slots import Slots
from stream_proxy.upstream.treq_carrier import BytesBody


class Upstream:
    """One upstream base URL, and what is open towards it.

    :param reactor: the reactor.
    :param url: where requests go; its path is a prefix of every target.
    :param limits: how long a connection may take to be made, how many may be in use and how many requests may
        wait for one.
    :param pool: connections to share; by default a pool of its own, which :meth:`close` empties.
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
        pool: HTTPConnectionPool | None = None,
        agent: IAgent | None = None,
        route: Route | None = None,
        access: Access | None = None,
    ) -> None:
        limits = limits or Limits()
        self.url = url
        self.access = access if access is not None else Access()
        self.connect_seconds = limits.connect_seconds
        own = UpstreamPool(reactor)
        self._own_pool = own if pool is None else None
        self._agent = agent
        self._draining: set[Drain] = set()
        self._connections = Connections(
            reactor,
            ResolvedRoute(reactor, url, route or Route(), limits.connect_seconds),
            own if pool is None else pool,
            Slots(reactor, limits.max_upstream_connections, limits.max_upstream_waiting, url.origin),
            limits.connect_seconds,
        )

    def request(
        self, method: bytes, target: bytes, headers: Iterable[RawHeader], body: bytes | IBodyProducer | None
    ) -> Deferred[UpstreamResponse]:
        """Send one request, as soon as a connection may be used for it.

        :param target: origin form, as the client wrote it; the URL's own path goes before it.
        :param headers: the fields beside ``Host`` and the framing.
        :param body: ``None`` for no body at all. Bytes are sent a second time, on a fresh connection, if a
            reused one turns out to be dead; a producer's never.
        :return: fires with the response as soon as its head is in. Cancelling it drops the connection.
        :raises APIError: through the Deferred, for every failure but a cancellation.
        """
        fields = Headers()
        fields.addRawHeader(b"Host", self.url.netloc)
        for name, value in self.access.headers(method, headers):
            fields.addRawHeader(name, value)
        producer = BytesBody(body) if isinstance(body, bytes) else body
        attempt = Attempt(
            self._connections,
            method,
            self.url.prefix + self.access.target(target),
            fields,
            producer,
            resend=producer is not body or body is None,
        )
        return attempt.start(self.access, self._agent, self.url.origin)

    def queue_error(self, asking: Deferred[UpstreamResponse] | None, seconds: float) -> APIError | None:
        """Return the error for a request that has waited so long for a connection; ``None`` if it was sent.

        :param asking: the Deferred that :meth:`request` returned.
        """
        return self.never_free(seconds) if asking in self._connections.queued else None

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
        return succeed(None) if self._own_pool is None else self._own_pool.close()
