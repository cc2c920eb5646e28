"""The HTTP client that does not interfere: one upstream, its connections, its time limits.

Twisted's ``HTTP11ClientProtocol`` parses and pools, treq carries the request; this module sees to it that
neither changes anything on the way: target, method, headers and body go out as they are handed in, and
nothing is followed, decoded, remembered or sent twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http.cookiejar import CookieJar
from typing import Any, cast

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IConsumer, IProtocolFactory, IReactorTime
from twisted.internet.interfaces import IStreamClientEndpoint as IEndpoint
from twisted.python.failure import Failure
from twisted.web._newclient import Request, RequestNotSent, ResponseNeverReceived
from twisted.web.client import HTTPConnectionPool
from twisted.web.http import NOT_MODIFIED
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from stream_proxy.access import Access
from stream_proxy.answer import BodySink, Drain, UpstreamResponse
from stream_proxy.connection import PooledEndpoint, UpstreamPool, UpstreamProtocol, unwrapped
from stream_proxy.failures import ConnectLimitError, request_failure
from stream_proxy.headers import RawHeader, response_headers
from stream_proxy.tls import VerifyingPolicy
from stream_proxy.url import UpstreamURL

__all__ = ["BodySink", "BytesBody", "Upstream", "UpstreamResponse"]

#: Reaching the upstream: DNS, TCP and TLS together, in seconds.
CONNECT_SECONDS = 10.0
#: A reused connection that dies this soon after a request was closed by the server before it saw the request.
_STALE_SECONDS = 1.0


class _NoCookies(CookieJar):
    """A jar that takes nothing and gives nothing: cookies are between each client and the upstream."""

    def add_cookie_header(self, request: Any) -> None:
        pass

    def extract_cookies(self, response: Any, request: Any) -> None:
        pass


class _Anywhere(EncodedURL):
    """The URL that treq is given. It goes nowhere, so that nothing has to be parsed or encoded."""

    def to_uri(self) -> _Anywhere:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return "http://upstream/"


_ANYWHERE = _Anywhere.from_text("http://upstream/")


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
    :param access: as whom it is called.
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
        access: Access | None = None,
    ) -> None:
        self.url = url
        self.access = access if access is not None else Access()
        self._clock: IReactorTime = reactor
        self._own_pool = pool is None and agent is None
        self._pool = UpstreamPool(reactor) if pool is None else pool
        self._agent = agent
        self.connect_seconds = connect_seconds
        self._draining: set[Drain] = set()
        self._cookies = _NoCookies()
        self._key = (url.scheme, url.host, url.port)
        endpoint: IEndpoint = HostnameEndpoint(reactor, url.host, url.port, timeout=connect_seconds)
        if url.scheme == "https":
            creator = (tls or VerifyingPolicy()).creatorForNetloc(url.host.encode("ascii"), url.port)
            endpoint = wrapClientTLS(creator, endpoint)
        self._endpoint = endpoint
        self._pooled_endpoint = PooledEndpoint(endpoint)

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

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """A connection of its own, for another protocol than HTTP; an `agent` has no part in it."""
        return self._endpoint.connect(factory)

    def drain(self, response: UpstreamResponse) -> None:
        """Give `response` a moment to end, so that its connection can be reused; then drop it."""
        if not response.ended:
            self._draining.add(Drain(self._clock, response, self._draining.discard))

    def close(self) -> Deferred[object]:
        """Drop what is idle or draining. Requests under way belong to their callers."""
        for drain in list(self._draining):
            drain.stop()
        return self._pool.closeCachedConnections() if self._own_pool else succeed(None)


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
            _ANYWHERE,
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
        upstream = self._upstream
        pool, clock = upstream._pool, upstream._clock
        request = Request._construct(
            self._method, self._target, self._headers, self._body, persistent=pool.persistent
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
        return await self._ask(await self._connect(pool._newConnection), request)

    async def _connect(self, get: Callable[[Any, IEndpoint], Deferred[Any]]) -> UpstreamProtocol:
        upstream = self._upstream
        waiting: Deferred[Any] = get(upstream._key, upstream._pooled_endpoint)
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
