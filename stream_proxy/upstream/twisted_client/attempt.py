"""Request through an agent or a pool of the library's user: by treq and Twisted's own client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.internet.interfaces import IStreamClientEndpoint as IEndpoint
from twisted.python.failure import Failure
from twisted.web._newclient import Request, RequestNotSent, ResponseNeverReceived
from twisted.web.client import HTTPConnectionPool
from twisted.web.http import NOT_MODIFIED, PROXY_AUTH_REQUIRED
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from stream_proxy.http.access import Access
from stream_proxy.http.body_pieces import BodyPieces
from stream_proxy.http.headers import raw_headers, response_headers
from stream_proxy.upstream.asking import STALE_SECONDS, Asker
from stream_proxy.upstream.connections import Connections
from stream_proxy.upstream.failures import ProxyRefusedError, replaced, request_failure
from stream_proxy.upstream.slots import Slot
from stream_proxy.upstream.treq_carrier import carried
from stream_proxy.upstream.twisted_client.connection import TwistedConnection
from stream_proxy.upstream.twisted_client.pool import PooledEndpoint, unwrapped
from stream_proxy.upstream.twisted_client.response import upstream_response
from stream_proxy.upstream.upload import Outgoing


@implementer(IBodyProducer)
class BytesBody:
    """Request body that is in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        if self._data:
            consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


class Attempt:
    """One request: a connection, the request on it, and at most one more if the first was stale.

    :param sender: the agent or the pool.
    :param headers: all fields but the framing.
    """

    def __init__(
        self,
        connections: Connections,
        sender: IAgent | HTTPConnectionPool,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: Outgoing | None,
    ) -> None:
        self.active = True
        self.queued = False
        self._connections = connections
        self._sender = sender
        self._method = method
        self._target = target
        self._headers = headers
        self._body = BytesBody(bytes(body)) if isinstance(body, bytes | BodyPieces) else body
        self._resend = self._body is not body or body is None
        self._connection: TwistedConnection | None = None
        self._connection_fields: list[bytes] = []
        self._response_headers = Headers()
        self._asking: Deferred[IResponse] | None = None

    def start(self, access: Access, asker: Asker) -> None:
        """Send the request. The asker may be told before this returns.

        :param access: the keys, by which the response's cookies are judged.
        """
        origin = self._connections.route.peer.name

        def send() -> Deferred[IResponse]:
            return self._send(origin).addCallback(self._keep_headers)

        def responded(response: IResponse) -> None:
            raw = raw_headers(self._response_headers.getAllRawHeaders())
            headers = access.answer_headers(response_headers(raw, self._connection_fields))
            made = upstream_response(response, headers, self._connection, origin)
            if self.active:
                self.active = False
                asker.upstream_responded(made)
            else:
                made.hang_up()

        def failed(failure: Failure) -> None:
            if not self.active:
                replaced(failure, CancelledError())
                return
            self.active = False
            peer, seconds = self._connections.route.answers, self._connections.connect_seconds
            asker.upstream_failed(request_failure(failure, peer, seconds))

        self._asking = carried(send, self._connections.clock)
        self._asking.addCallbacks(responded, failed)

    def cancel(self) -> None:
        self.active = False
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    def _send(self, origin: str) -> Deferred[IResponse]:
        sender = self._sender
        if isinstance(sender, HTTPConnectionPool):
            return Deferred.fromCoroutine(self._run(sender))
        return sender.request(self._method, origin.encode("ascii") + self._target, self._headers, self._body)

    def _keep_headers(self, response: IResponse) -> IResponse:
        # treq reads and rewrites the headers of a response; it gets none.
        self._response_headers = response.headers
        response.headers = Headers()
        return response

    async def _run(self, pool: HTTPConnectionPool) -> IResponse:
        slot = await self._slot()
        try:
            response = await self._attempts(pool)
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
        self.queued = True
        try:
            return await self._connections.slots.take()
        finally:
            self.queued = False

    async def _attempts(self, pool: HTTPConnectionPool) -> IResponse:
        clock, route = self._connections.clock, self._connections.route
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
            stale = reused and clock.seconds() - sent_at <= STALE_SECONDS
            if not (stale and self._resend and self.active):
                raise
        return await self._ask(await self._connect(pool._newConnection), request)

    async def _connect(self, get: Callable[[Any, IEndpoint], Deferred[Any]]) -> TwistedConnection:
        connections = self._connections
        waiting: Deferred[Any] = get(connections.route.key, PooledEndpoint(connections.endpoint))
        kept = unwrapped(getattr(waiting, "result", None))
        if isinstance(kept, TwistedConnection) and kept.requests:  # a connection from the pool is ready
            return kept
        return await connections.within_limit(
            waiting.addCallback(unwrapped), lambda connection: connection.transport.abortConnection()
        )

    async def _ask(self, connection: TwistedConnection, request: Request) -> IResponse:
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
