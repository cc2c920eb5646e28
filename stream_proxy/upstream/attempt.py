"""Attempt at one request: a slot, a connection, and a second connection if a reused one was dead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint as IEndpoint
from twisted.python.failure import Failure
from twisted.web._newclient import Request, RequestNotSent, ResponseNeverReceived
from twisted.web.http import NOT_MODIFIED, PROXY_AUTH_REQUIRED
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse

from stream_proxy.http.access import Access
from stream_proxy.http.headers import raw_headers, response_headers
from stream_proxy.upstream.connection import UpstreamProtocol
from stream_proxy.upstream.connections import Connections
from stream_proxy.upstream.failures import ConnectLimitError, ProxyRefusedError, replaced, request_failure
from stream_proxy.upstream.pool import unwrapped
from stream_proxy.upstream.response import UpstreamResponse
from stream_proxy.upstream.slots import Slot
from stream_proxy.upstream.treq_carrier import carried

#: Seconds. A reused connection that dies this soon was closed by the server before it saw the request.
_STALE_SECONDS = 1.0


class Attempt:
    """One request: a connection, the request on it, and at most one more if the first was stale.

    :param resend: the request may be sent again on a fresh connection.
    """

    def __init__(
        self,
        connections: Connections,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: IBodyProducer | None,
        *,
        resend: bool,
    ) -> None:
        self._connections = connections
        self._method = method
        self._target = target
        self._headers = headers
        self._body = body
        self._resend = resend
        self._cancelled = False
        self._connection: UpstreamProtocol | None = None
        self._connection_fields: list[bytes] = []
        self._response_headers = Headers()
        self._responded: Deferred[UpstreamResponse] = Deferred(self._cancel)
        self._asking: Deferred[IResponse] | None = None

    def start(self, access: Access, agent: IAgent | None, origin: str) -> Deferred[UpstreamResponse]:
        """Send the request, through `agent` if there is one.

        :param access: the keys, by which the response's cookies are judged.
        :return: see :meth:`~stream_proxy.upstream.client.Upstream.request`.
        """

        def send() -> Deferred[IResponse]:
            return self._send(agent, origin).addCallback(self._keep_headers)

        def responded(response: IResponse) -> None:
            raw = raw_headers(self._response_headers.getAllRawHeaders())
            headers = access.answer_headers(response_headers(raw, self._connection_fields))
            self._responded.callback(UpstreamResponse(response, headers, self._connection, origin))

        self._asking = carried(send, self._connections.clock)
        self._asking.addCallbacks(responded, self._failed)
        return self._responded

    def _cancel(self, _: object) -> None:
        self._cancelled = True
        if self._asking is not None:
            self._asking.cancel()

    def _failed(self, failure: Failure) -> None:
        if self._cancelled:
            failure = replaced(failure, CancelledError())
        else:
            peer, seconds = self._connections.route.answers, self._connections.connect_seconds
            failure = request_failure(failure, peer, seconds)
        if not self._responded.called:
            self._responded.errback(failure)

    def _send(self, agent: IAgent | None, origin: str) -> Deferred[IResponse]:
        if agent is None:
            return Deferred.fromCoroutine(self._run())
        uri = origin.encode("ascii") + self._target
        return agent.request(self._method, uri, self._headers, self._body)

    def _keep_headers(self, response: IResponse) -> IResponse:
        # treq reads and rewrites the headers of a response; it gets none.
        self._response_headers = response.headers
        response.headers = Headers()
        return response

    async def _run(self) -> IResponse:
        slot = await self._slot()
        try:
            response = await self._attempts()
            if response.code == PROXY_AUTH_REQUIRED and self._connections.route.reads_requests:
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
        connections = self._connections
        connections.queued.add(self._responded)
        try:
            return await connections.slots.take()
        finally:
            connections.queued.discard(self._responded)

    async def _attempts(self) -> IResponse:
        pool, clock, route = self._connections.pool, self._connections.clock, self._connections.route
        for name, value in route.fields:
            self._headers.addRawHeader(name, value)
        request = Request._construct(
            self._method,
            route.before_target + self._target,
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
        self._connections.make_room()
        return await self._ask(await self._connect(pool._newConnection), request)

    async def _connect(self, get: Callable[[Any, IEndpoint], Deferred[Any]]) -> UpstreamProtocol:
        connections = self._connections
        waiting: Deferred[Any] = get(connections.route.key, connections.endpoint)
        kept = unwrapped(getattr(waiting, "result", None))
        if isinstance(kept, UpstreamProtocol) and kept.requests:  # a connection from the pool is ready
            return kept
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            waiting.cancel()

        limit = connections.clock.callLater(connections.connect_seconds, expire)
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
        connection.watch_path(self._connections.paths)
        parser = connection._parser
        response = await sent
        if parser is not None:
            # Twisted keeps these out of the response's headers.
            fields = parser.connHeaders
            self._connection_fields = list(fields.getRawHeaders(b"Connection", ()))
            if response.code == NOT_MODIFIED:  # its length is that of another response, not framing
                for value in fields.getRawHeaders(b"Content-Length", ()):
                    response.headers.addRawHeader(b"Content-Length", value)
        return response
