"""The HTTP client that does not interfere: one upstream, its connections, its time limits.

Twisted's ``HTTP11ClientProtocol`` parses and pools, treq carries the request; this module sees to it that
neither changes anything on the way: target, method, headers and body go out as they are handed in, and
nothing is followed, decoded, remembered or sent twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.internet.interfaces import IStreamClientEndpoint as IEndpoint
from twisted.python.failure import Failure
from twisted.web._newclient import Request, RequestNotSent, ResponseNeverReceived
from twisted.web.client import HTTPConnectionPool
from twisted.web.http import NOT_MODIFIED, PROXY_AUTH_REQUIRED
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse

from stream_proxy.access import Access
from stream_proxy.answer import BodySink, Drain, UpstreamResponse
from stream_proxy.connection import PooledEndpoint, UpstreamPool, UpstreamProtocol, unwrapped
from stream_proxy.errors import APIError, no_connection_free
from stream_proxy.failures import ConnectLimitError, ProxyRefusedError, request_failure
from stream_proxy.headers import RawHeader, response_headers
from stream_proxy.route import Route, Way
from stream_proxy.slots import Slot, Slots
from stream_proxy.url import UpstreamURL
from stream_proxy.verbatim import BytesBody, carried

__all__ = ["BodySink", "BytesBody", "Upstream", "UpstreamResponse"]

#: Reaching the upstream: DNS, TCP and TLS together, in seconds.
CONNECT_SECONDS = 10.0
#: A reused connection that dies this soon after a request was closed by the server before it saw the request.
_STALE_SECONDS = 1.0


class Upstream:
    """One upstream base URL, and what is open towards it.

    :param reactor: the reactor.
    :param url: where requests go; its path is a prefix of every target.
    :param pool: connections to share; by default a pool of its own, which :meth:`close` empties.
    :param agent: send requests through this agent instead. Requests then are what it makes of them, and the
        way, the number of connections, answers that come before an upload is over, and connections that died
        while idle, are its own affair.
    :param tls: how certificates are checked, if not as `route` says.
    :param route: how to get there.
    :param connect_seconds: the limit for DNS, TCP and TLS together, a proxy on the way included.
    :param max_connections: how many connections may be in use at once; what comes then waits.
    :param max_waiting: how many may wait.
    :param access: as whom it is called.
    :raises ValueError: if `route` leads nowhere.
    """

    def __init__(
        self,
        reactor: Any,
        url: UpstreamURL,
        *,
        pool: HTTPConnectionPool | None = None,
        agent: IAgent | None = None,
        tls: IPolicyForHTTPS | None = None,
        route: Route | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        max_connections: int = 10_000,
        max_waiting: int = 1_000,
        access: Access | None = None,
    ) -> None:
        self.url = url
        self.access = access if access is not None else Access()
        self._clock: IReactorTime = reactor
        own = UpstreamPool(reactor)
        self._own_pool = own if pool is None else None
        self._pool = own if pool is None else pool
        self._agent = agent
        self.connect_seconds = connect_seconds
        self._draining: set[Drain] = set()
        self._slots = Slots(reactor, max_connections, max_waiting, url.origin)
        self._queued: set[Deferred[UpstreamResponse]] = set()
        self._way = Way(reactor, url, route or Route(), tls=tls, connect_seconds=connect_seconds)
        self._pooled_endpoint = PooledEndpoint(self._way.requests)

    def request(
        self, method: bytes, target: bytes, headers: Iterable[RawHeader], body: bytes | IBodyProducer | None
    ) -> Deferred[UpstreamResponse]:
        """Send one request, once a connection may be used for it.

        :param target: origin form, as the client wrote it; the URL's own path goes before it.
        :param headers: what goes out beside ``Host`` and the framing.
        :param body: ``None`` for no body at all. Bytes are sent a second time, on a fresh connection, if a
            reused one turns out to be dead; a producer's never.
        :return: fires with the answer's head, as soon as that is in. Cancelling it drops the connection.
        :raises APIError: through the Deferred, for every failure but being cancelled.
        """
        fields = Headers()
        fields.addRawHeader(b"Host", self.url.netloc)
        for name, value in self.access.headers(method, headers):
            fields.addRawHeader(name, value)
        producer = BytesBody(body) if isinstance(body, bytes) else body
        attempt = _Attempt(
            self,
            method,
            self.url.prefix + self.access.target(target),
            fields,
            producer,
            resend=producer is not body or body is None,
        )
        return attempt.start()

    def queue_error(self, asking: Deferred[UpstreamResponse] | None, seconds: float) -> APIError | None:
        """What to say of a request after that much silence, if it was never sent.

        :param asking: what :meth:`request` returned.
        """
        return self.never_free(seconds) if asking in self._queued else None

    def never_free(self, seconds: float) -> APIError:
        """No connection may be used yet, after that much time."""
        return no_connection_free(self.url.origin, self._slots.limit, seconds)

    def connect(self, factory: IProtocolFactory, begun: Callable[[], None]) -> Deferred[Any]:
        """A connection of its own, for another protocol than HTTP; an `agent` has no part in it.

        :param factory: of an :class:`~.slots.Occupant`, which vacates its slot when it ends.
        :param begun: called once when such a connection may be opened.
        :raises APIError: through the Deferred, if too many wait. For other failures see :meth:`explained`.
        """
        return Deferred.fromCoroutine(self._connect(factory, begun))

    async def _connect(self, factory: IProtocolFactory, begun: Callable[[], None]) -> Any:
        slot = await self._slots.take()
        try:
            begun()
            self._make_room()
            connection: Any = await self._way.endpoint.connect(factory)
        except BaseException:
            slot.free()
            raise
        connection.occupy(slot)
        return connection

    def explained(self, failure: Failure) -> Failure:
        """Why a connection of :meth:`connect` failed, as an :class:`APIError` if that is known."""
        return request_failure(failure, self._way.peer, self.connect_seconds)

    def drain(self, response: UpstreamResponse) -> None:
        """Give `response` a moment to end, so that its connection can be reused; then drop it."""
        if not response.ended:
            self._draining.add(Drain(self._clock, response, self._draining.discard))

    def close(self) -> Deferred[object]:
        """Drop what is idle or draining, and keep nothing. Requests under way belong to their callers."""
        for drain in list(self._draining):
            drain.stop()
        return succeed(None) if self._own_pool is None else self._own_pool.close()

    def _make_room(self) -> None:
        """Before one more connection is opened: idle ones count, too."""
        if isinstance(self._pool, UpstreamPool):
            self._pool.keep(self._way.key, self._slots.limit - self._slots.in_use)


class _Attempt:
    """One request: a connection, the request on it, and at most one more if the first was stale."""

    def __init__(
        self,
        upstream: Upstream,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: IBodyProducer | None,
        *,
        resend: bool,
    ) -> None:
        self._upstream = upstream
        self._method = method
        self._target = target
        self._headers = headers
        self._body = body
        self._resend = resend
        self._cancelled = False
        self._connection: UpstreamProtocol | None = None
        self._connection_fields: list[bytes] = []
        self._answer_headers = Headers()
        self._answered: Deferred[UpstreamResponse] = Deferred(self._cancel)
        self._asking: Deferred[IResponse] | None = None

    def start(self) -> Deferred[UpstreamResponse]:
        self._asking = carried(self._send, self._upstream._clock)
        self._asking.addCallbacks(
            lambda answer: self._answered.callback(self._response(answer)), self._failed
        )
        return self._answered

    def _cancel(self, _: object) -> None:
        self._cancelled = True
        if self._asking is not None:
            self._asking.cancel()

    def _failed(self, failure: Failure) -> None:
        if self._cancelled:
            failure = Failure(CancelledError())
        else:
            failure = request_failure(failure, self._upstream._way.answers, self._upstream.connect_seconds)
        if not self._answered.called:
            self._answered.errback(failure)

    def _response(self, answer: IResponse) -> UpstreamResponse:
        raw = [(name, value) for name, values in self._answer_headers.getAllRawHeaders() for value in values]
        headers = self._upstream.access.answer_headers(response_headers(raw, self._connection_fields))
        return UpstreamResponse(answer, headers, self._connection, self._upstream.url.origin)

    def _send(self) -> Deferred[IResponse]:
        agent = self._upstream._agent
        if agent is None:
            answer = Deferred.fromCoroutine(self._run())
        else:
            uri = self._upstream.url.origin.encode("ascii") + self._target
            answer = agent.request(self._method, uri, self._headers, self._body)
        return answer.addCallback(self._keep_headers)

    def _keep_headers(self, response: IResponse) -> IResponse:
        # treq reads and rewrites the headers of what it is given; it gets none.
        self._answer_headers = response.headers
        response.headers = Headers()
        return response

    async def _run(self) -> IResponse:
        slot = await self._slot()
        try:
            response = await self._attempts()
            if response.code == PROXY_AUTH_REQUIRED and self._upstream._way.reads_requests:
                raise ProxyRefusedError(response.code)
        except BaseException:
            connection = self._connection
            if connection is None:
                slot.free()
            else:
                if not connection.is_gone and connection.state != "QUIESCENT":
                    connection.transport.abortConnection()
                connection.occupy(slot)
            raise
        assert self._connection is not None
        self._connection.occupy(slot)
        return response

    async def _slot(self) -> Slot:
        upstream = self._upstream
        upstream._queued.add(self._answered)
        try:
            return await upstream._slots.take()
        finally:
            upstream._queued.discard(self._answered)

    async def _attempts(self) -> IResponse:
        upstream = self._upstream
        pool, clock, way = upstream._pool, upstream._clock, upstream._way
        for name, value in way.fields:
            self._headers.addRawHeader(name, value)
        request = Request._construct(
            self._method,
            way.before_target + self._target,
            self._headers,
            self._body,
            persistent=pool.persistent,
        )
        connection = await self._connect(pool.getConnection)
        reused = connection.requests > 0
        sent_at = clock.seconds()
        try:
            return await self._ask(connection, request)
        except (ResponseNeverReceived, RequestNotSent):  # not one byte came
            stale = reused and clock.seconds() - sent_at <= _STALE_SECONDS
            if not (stale and self._resend) or self._cancelled:
                raise
        upstream._make_room()
        return await self._ask(await self._connect(pool._newConnection), request)

    async def _connect(self, get: Callable[[Any, IEndpoint], Deferred[Any]]) -> UpstreamProtocol:
        upstream = self._upstream
        waiting: Deferred[Any] = get(upstream._way.key, upstream._pooled_endpoint)
        kept = unwrapped(getattr(waiting, "result", None))
        if isinstance(kept, UpstreamProtocol) and kept.requests:  # it needs no limit to be ready
            return kept
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            waiting.cancel()

        limit = upstream._clock.callLater(upstream.connect_seconds, expire)
        connection: UpstreamProtocol | None = None
        try:
            connection = unwrapped(await waiting)
            waiting = connection.ready
            await waiting
            return connection
        except BaseException:
            if connection is not None and connection.transport is not None:
                connection.transport.abortConnection()
            if expired:
                raise ConnectLimitError() from None
            raise
        finally:
            if limit.active():
                limit.cancel()

    async def _ask(self, connection: UpstreamProtocol, request: Request) -> IResponse:
        self._connection = connection
        sent = connection.request(request)
        parser = connection._parser
        response = await sent
        if parser is not None:
            # Twisted keeps these from the answer's headers.
            fields = parser.connHeaders
            self._connection_fields = list(fields.getRawHeaders(b"Connection", ()))
            if response.code == NOT_MODIFIED:  # its length is that of another answer, not framing
                for value in fields.getRawHeaders(b"Content-Length", ()):
                    response.headers.addRawHeader(b"Content-Length", value)
        return response
