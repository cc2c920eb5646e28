"""The HTTP client that does not interfere: one upstream, its connections, its time limits.

Twisted's ``HTTP11ClientProtocol`` parses and pools, treq carries the request; this module sees to it that
neither changes anything on the way: target, method, headers and body go out as they are handed in, and
nothing is followed, decoded, remembered or sent twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http.cookiejar import CookieJar
from typing import Any, Protocol, cast

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHandshakeListener,
    IProtocolFactory,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.interfaces import IStreamClientEndpoint as IEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from twisted.web._newclient import (
    HTTP11ClientProtocol,
    HTTPClientParser,
    Request,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseNeverReceived,
)
from twisted.web.client import HTTPConnectionPool
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from stream_proxy.config import UpstreamURL
from stream_proxy.errors import APIError
from stream_proxy.failures import ConnectLimitError, HeadTooLargeError, body_failure, request_failure
from stream_proxy.headers import RawHeader, connection_tokens, response_headers
from stream_proxy.sockets import tune
from stream_proxy.tls import VerifyingPolicy

#: The longest response head, as for requests.
MAX_HEAD_BYTES = 65_536
#: Reaching the upstream: DNS, TCP and TLS together, in seconds.
CONNECT_SECONDS = 10.0
#: A reused connection that dies this soon after a request was closed by the server before it saw the request.
_STALE_SECONDS = 1.0
#: How long an upstream may take to end a body that is no longer needed, so that its connection can be reused.
DRAIN_SECONDS = 1.0


class BodySink(Protocol):
    """What takes the body of an answer."""

    def body_received(self, data: bytes) -> None:
        """Some bytes, as they came."""

    def body_ended(self, error: APIError | None) -> None:
        """The end, once: ``None`` if it came as its framing promised."""


@implementer(IHandshakeListener)
class UpstreamProtocol(HTTP11ClientProtocol):
    """A pooled connection that bounds the response head, honours every spelling of ``Connection: close``,
    and hands over an answer that comes before the request's body is out."""

    #: Requests that were sent on this connection.
    requests = 0
    #: The connection ended otherwise than by an orderly close.
    torn = False
    transport: Any
    _head_bytes = 0
    _head: Deferred[IResponse] | None = None

    def __init__(self, quiescent: Callable[[UpstreamProtocol], None]) -> None:
        super().__init__(quiescent)
        #: Fires once when the first request may be sent; fails if the connection or its handshake does.
        self.ready: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        super().connectionMade()
        tune(self.transport)
        if not ISSLTransport.providedBy(self.transport):
            self.ready.callback(None)

    def handshakeCompleted(self) -> None:
        if not self.ready.called:
            self.ready.callback(None)

    def request(self, request: Request) -> Deferred[IResponse]:
        """Send `request`. Unlike Twisted's, the result fires with the response head as soon as that is in."""
        self.requests += 1
        self._head_bytes = 0
        sent: Deferred[IResponse] = super().request(request)
        parser, head = self._parser, self._responseDeferred
        if parser is not None:
            parser.MAX_LENGTH = MAX_HEAD_BYTES
        if self._state != "TRANSMITTING" or head is None:
            return sent
        self._head = head
        early: Deferred[IResponse] = Deferred(lambda _: sent.cancel())

        def answered(response: IResponse) -> IResponse:
            if not early.called:
                early.callback(response)
            return response

        def failed(failure: Failure) -> Failure:
            if not early.called:
                early.errback(failure)
            return failure

        # Twisted chains `head` to `sent` once the request is out, so both must keep their result.
        head.addCallbacks(answered, failed)
        sent.addErrback(failed).addErrback(lambda _: None)
        return early

    def dataReceived(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:  # bytes that no request asked for: nothing sensible can follow them
            self.transport.abortConnection()
            return
        in_head = _in_head(parser)
        super().dataReceived(data)
        if in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and self._parser is parser and _in_head(parser):
                self._giveUp(Failure(HeadTooLargeError()))
                self.transport.abortConnection()

    @property
    def answering(self) -> bool:
        """Some bytes of an answer to the last request have come."""
        return self._head_bytes > 0

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.torn = not reason.check(ConnectionDone)
        if not self.ready.called:
            self.ready.errback(reason)
        self.ready.addErrback(lambda _: None)  # whoever waited has heard it
        transmitting = self._state == "TRANSMITTING"
        super().connectionLost(reason)
        if transmitting:  # Twisted forgets the body of an answer that came before the request was out
            self._disconnectParser(reason)
            if self._head is not None:
                self._head.addErrback(lambda _: None)

    def _finishResponse_WAITING(self, rest: bytes) -> None:
        parser = self._parser
        if parser is not None:
            tokens = connection_tokens(parser.connHeaders.getRawHeaders(b"Connection", ()))
            old = parser.response.version < (b"HTTP", 1, 1) and b"keep-alive" not in tokens
            if old or rest or b"close" in tokens:
                parser.connHeaders.setRawHeaders(b"Connection", [b"close"])
        super()._finishResponse_WAITING(rest)

    _finishResponse_TRANSMITTING = _finishResponse_WAITING


def _in_head(parser: HTTPClientParser) -> bool:
    return parser.state in ("STATUS", "HEADER")


class _Factory(Factory):
    def __init__(self, quiescent: Callable[[UpstreamProtocol], None], description: str) -> None:
        self.noisy = False
        self._quiescent = quiescent

    def buildProtocol(self, addr: object) -> UpstreamProtocol:
        return UpstreamProtocol(self._quiescent)


class UpstreamPool(HTTPConnectionPool):
    """Connections kept for reuse: many, not for long, and never used to send a request again by themselves.

    :param reactor: as for ``HTTPConnectionPool``.
    """

    _factory = _Factory  # type: ignore[assignment]
    retryAutomatically = False
    maxPersistentPerHost = 256
    #: Seconds. Shorter than what most servers keep an idle connection for.
    cachedConnectionTimeout = 30


class _NoCookies(CookieJar):
    """A jar that takes nothing and gives nothing: cookies are between each client and the upstream."""

    def add_cookie_header(self, request: Any) -> None:
        pass

    def extract_cookies(self, response: Any, request: Any) -> None:
        pass


@implementer(IBodyProducer)
class BytesBody:
    """A request body that is at hand."""

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


class UpstreamResponse(TwistedProtocol):
    """An answer whose head is in.

    ``status`` (int), ``reason`` (bytes), ``headers`` (the fields that may travel, as they came), ``length``
    (bytes of the body that the head promises, ``None`` if it promises none).

    The body goes to a :class:`BodySink`, which may be replaced while it flows.
    """

    transport: Any

    def __init__(
        self, response: IResponse, headers: list[RawHeader], connection: UpstreamProtocol | None, host: str
    ):
        self.status: int = response.code
        self.reason: bytes = response.phrase
        self.headers = headers
        self.length: int | None = response.length if isinstance(response.length, int) else None
        #: The body has begun to flow.
        self.started = False
        #: It has ended, and why not as it should have.
        self.ended = False
        self.error: APIError | None = None
        self.sink: BodySink | None = None
        self._response = response
        self._connection = connection
        self._host = host

    def values(self, name: bytes) -> list[bytes]:
        """The values of the fields called `name` (lower case)."""
        return [value for field, value in self.headers if field.lower() == name]

    def start(self, sink: BodySink) -> None:
        """Let the body flow into `sink`, which may be called before this returns."""
        self.sink = sink
        self.started = True
        self._response.deliverBody(self)

    def pause(self) -> None:
        """Stop the body for a while."""
        if not self.ended and self.transport is not None:
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Let it flow again."""
        if not self.ended and self.transport is not None:
            self.transport.resumeProducing()

    def abort(self) -> None:
        """The rest is not wanted: drop the connection at once, over TLS too. The sink hears no more."""
        if not self.ended:
            self.ended = True
            self.hang_up()

    def hang_up(self) -> None:
        """Drop the connection even if the answer is whole: the upstream waits for the rest of an upload."""
        self.sink = None
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.abortConnection()
        elif self.transport is not None:
            self.transport.stopProducing()

    def dataReceived(self, data: bytes) -> None:
        if self.sink is not None:
            self.sink.body_received(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self.ended:
            return
        self.ended = True
        torn = self._connection is not None and self._connection.torn
        if not reason.check(ResponseDone) and (torn or not reason.check(PotentialDataLoss)):
            self.error = body_failure(reason, self._host)
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.body_ended(self.error)


@implementer(IAgent)
class _Verbatim:
    """The agent that treq is given for one request: it sends that request, whatever treq made of it."""

    def __init__(self, send: Callable[[], Deferred[IResponse]]) -> None:
        self._send = send

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        return self._send()


class Upstream:
    """One upstream base URL, and what is open towards it.

    :param reactor: the reactor.
    :param url: where requests go; its path is a prefix of every target.
    :param pool: connections to share; by default a pool of its own, which :meth:`close` empties.
    :param agent: send through this agent instead. Requests then are what it makes of them, and answers that
        come before an upload is over, and connections that died while idle, are its own affair.
    :param tls: how certificates are checked.
    :param connect_seconds: the limit for DNS, TCP and TLS together.
    """

    def __init__(
        self,
        reactor: Any,
        url: UpstreamURL,
        *,
        pool: HTTPConnectionPool | None = None,
        agent: IAgent | None = None,
        tls: IPolicyForHTTPS | None = None,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        self.url = url
        self._clock: IReactorTime = reactor
        self._own_pool = pool is None and agent is None
        self._pool = UpstreamPool(reactor) if pool is None else pool
        self._agent = agent
        self.connect_seconds = connect_seconds
        self._draining: set[_Drain] = set()
        self._cookies = _NoCookies()
        self._key = (url.scheme, url.host, url.port)
        endpoint: IEndpoint = HostnameEndpoint(reactor, url.host, url.port, timeout=connect_seconds)
        if url.scheme == "https":
            creator = (tls or VerifyingPolicy()).creatorForNetloc(url.host.encode("ascii"), url.port)
            endpoint = wrapClientTLS(creator, endpoint)
        self._endpoint = endpoint

    def request(
        self, method: bytes, target: bytes, headers: Iterable[RawHeader], body: bytes | IBodyProducer | None
    ) -> Deferred[UpstreamResponse]:
        """Send one request.

        :param target: origin form, as the client wrote it; the URL's own path goes before it.
        :param headers: what goes out beside ``Host`` and the framing.
        :param body: ``None`` for no body at all. Bytes are sent a second time, on a fresh connection, if a
            reused one turns out to be dead; a producer's never.
        :return: fires with the answer's head, as soon as that is in. Cancelling it drops the connection.
        :raises APIError: through the Deferred, for every failure but being cancelled.
        """
        fields = Headers()
        fields.addRawHeader(b"Host", self.url.netloc)
        for name, value in headers:
            fields.addRawHeader(name, value)
        producer = BytesBody(body) if isinstance(body, bytes) else body
        attempt = _Attempt(
            self,
            method,
            self.url.prefix + target,
            fields,
            producer,
            resend=producer is not body or body is None,
        )
        return attempt.start()

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """A connection of its own, for another protocol than HTTP."""
        return self._endpoint.connect(factory)

    def drain(self, response: UpstreamResponse) -> None:
        """Give `response` a moment to end, so that its connection can be reused; then drop it."""
        if not response.ended:
            self._draining.add(_Drain(self._clock, response, self._draining.discard))

    def close(self) -> Deferred[object]:
        """Drop what is idle or draining. Requests under way belong to their callers."""
        for drain in list(self._draining):
            drain.stop()
        return self._pool.closeCachedConnections() if self._own_pool else succeed(None)


class _Drain:
    """One answer that is read to its end for the sake of its connection."""

    def __init__(
        self, clock: IReactorTime, response: UpstreamResponse, done: Callable[[_Drain], None]
    ) -> None:
        self._response = response
        self._done = done
        self._call: IDelayedCall = clock.callLater(DRAIN_SECONDS, self.stop)
        response.sink = self
        response.resume()

    def body_received(self, data: bytes) -> None:
        pass

    def body_ended(self, error: APIError | None) -> None:
        self.stop()

    def stop(self) -> None:
        if self._call.active():
            self._call.cancel()
        self._response.abort()
        self._done(self)


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

    def start(self) -> Deferred[UpstreamResponse]:
        # treq would follow, decode, remember and rewrite; with these arguments, and an agent that ignores
        # what treq made of the request, nothing of that touches the bytes on either side.
        client = HTTPClient(_Verbatim(self._send), cookiejar=cast(Any, self._upstream._cookies))
        inner = client.request(
            "GET",
            "http://upstream/",
            allow_redirects=False,
            unbuffered=True,
            reactor=cast(Any, self._upstream._clock),
        )

        def cancel(_: object) -> None:
            self._cancelled = True
            inner.cancel()

        outer: Deferred[UpstreamResponse] = Deferred(cancel)

        def failed(failure: Failure) -> None:
            if self._cancelled:
                failure = Failure(CancelledError())
            else:
                failure = request_failure(failure, self._upstream.url, self._upstream.connect_seconds)
            if not outer.called:
                outer.errback(failure)

        inner.addCallbacks(lambda answer: outer.callback(self._response(answer)), failed)
        return outer

    def _response(self, answer: IResponse) -> UpstreamResponse:
        raw = [(name, value) for name, values in self._answer_headers.getAllRawHeaders() for value in values]
        headers = list(response_headers(raw, self._connection_fields))
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
        upstream = self._upstream
        pool, clock = upstream._pool, upstream._clock
        connection = await self._connect(pool.getConnection)
        reused = getattr(connection, "requests", 0) > 0
        sent_at = clock.seconds()
        try:
            return await self._ask(connection)
        except (ResponseNeverReceived, RequestNotSent, RequestTransmissionFailed):
            stale = reused and not connection.answering and clock.seconds() - sent_at <= _STALE_SECONDS
            if not (stale and self._resend) or self._cancelled:
                raise
        return await self._ask(await self._connect(pool._newConnection))

    async def _connect(self, get: Callable[[Any, IEndpoint], Deferred[Any]]) -> UpstreamProtocol:
        upstream = self._upstream
        waiting: Deferred[Any] = get(upstream._key, upstream._endpoint)
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            waiting.cancel()

        limit = upstream._clock.callLater(upstream.connect_seconds, expire)
        connection: UpstreamProtocol | None = None
        try:
            connection = await waiting
            assert connection is not None
            if isinstance(connection, UpstreamProtocol):
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

    async def _ask(self, connection: UpstreamProtocol) -> IResponse:
        self._connection = connection
        sent = connection.request(
            Request._construct(self._method, self._target, self._headers, self._body, persistent=True)
        )
        parser = connection._parser
        response = await sent
        if parser is not None:
            self._connection_fields = list(parser.connHeaders.getRawHeaders(b"Connection", ()))
        return response
