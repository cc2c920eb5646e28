"""treq as the carrier of requests, for the sake of its interface: it must not touch a byte on either side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http.cookiejar import CookieJar
from typing import Any, cast

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from stream_proxy.http.access import Access
from stream_proxy.http.headers import RawHeader
from stream_proxy.upstream.asking import Asker, Asking, PooledAsking, Step
from stream_proxy.upstream.connection import Request
from stream_proxy.upstream.connections import Connections
from stream_proxy.upstream.http1.request import request_head
from stream_proxy.upstream.response import UpstreamResponse
from stream_proxy.upstream.upload import Outgoing, length_of


class PooledAgent:
    """Agent for one upstream: it sends what it is handed, over connections of ours.

    It has the shape of ``IAgent``, but for a response that is not one to the public: its body goes to a sink.

    :param host: the value of ``Host``.
    :param access: the keys, by which the cookies of responses are judged.
    """

    def __init__(self, connections: Connections, host: bytes, access: Access) -> None:
        self._connections = connections
        self._host = host
        self._access = access

    def ask(
        self,
        method: bytes,
        target: bytes,
        fields: Iterable[RawHeader],
        body: Outgoing | None,
        asker: Asker,
    ) -> Asking:
        """Send a request; see :meth:`~stream_proxy.upstream.client.Upstream.ask`."""
        route = self._connections.route
        if route.fields:
            fields = [*fields, *route.fields]
        head = request_head(method, route.before_target + target, self._host, length_of(body), fields)
        asking = PooledAsking(self._connections, Request(head, body, method == b"HEAD"), self._access, asker)
        asking.start()
        return asking

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Iterable[RawHeader] = (),
        bodyProducer: Outgoing | None = None,
    ) -> Deferred[UpstreamResponse]:
        """Send a request.

        :param uri: the target, in origin form.
        :param headers: as pairs, in order.
        """
        return deferred(lambda asker: self.ask(method, uri, headers, bodyProducer, asker))


class Carrier(HTTPClient):
    """treq client that carries requests to its agent as they are.

    For each request treq's own method makes an agent that adds cookies and one that decompresses. They must
    do nothing here, and take longer for it than all else that a request costs on its way to the upstream.
    """

    def __init__(self, agent: PooledAgent) -> None:
        super().__init__(cast(IAgent, agent))
        self._pooled = agent

    def request(  # type: ignore[override]
        self,
        method: bytes,
        url: bytes,
        *,
        headers: Iterable[RawHeader] = (),
        data: Outgoing | None = None,
    ) -> Deferred[UpstreamResponse]:
        """Send a request.

        :param url: the target, in origin form.
        """
        return self._pooled.request(method, url, headers, data)

    def ask(
        self,
        method: bytes,
        url: bytes,
        headers: Iterable[RawHeader],
        data: Outgoing | None,
        asker: Asker,
    ) -> Asking:
        """Send a request, without a Deferred; see :meth:`~stream_proxy.upstream.client.Upstream.ask`."""
        return self._pooled.ask(method, url, headers, data, asker)


class _DeferredAsker:
    """Asker that hands everything on to a Deferred, whose cancellation cancels the request."""

    def __init__(self) -> None:
        self.asking: Asking | None = None
        self.deferred: Deferred[UpstreamResponse] = Deferred(self._cancel)

    def upstream_step(self, step: Step) -> None:
        """Do nothing: a Deferred has no steps."""

    def upstream_responded(self, response: UpstreamResponse) -> None:
        self.asking = None
        self.deferred.callback(response)

    def upstream_failed(self, failure: Failure) -> None:
        self.asking = None
        self.deferred.errback(failure)

    def _cancel(self, _: object) -> None:
        asking, self.asking = self.asking, None
        if asking is not None:
            asking.cancel()


def deferred(ask: Callable[[Asker], Asking]) -> Deferred[UpstreamResponse]:
    """Return a Deferred of the response to the request that `ask` sends."""
    asker = _DeferredAsker()
    try:
        asking = ask(asker)
    except ValueError:
        asker.deferred.errback()
    else:
        if asking.active:
            asker.asking = asking
    return asker.deferred


class _NoCookies(CookieJar):
    """Jar that stays empty: cookies are between each client and the upstream."""

    def add_cookie_header(self, request: object) -> None:
        pass

    def extract_cookies(self, response: object, request: object) -> None:
        pass


class _Anywhere(EncodedURL):
    """URL for treq's argument, which is never used and so need not be parsed or encoded."""

    def to_uri(self) -> _Anywhere:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return "http://upstream/"


_ANYWHERE = _Anywhere.from_text("http://upstream/")


@implementer(IAgent)
class _Verbatim:
    """Agent for one request, which it sends whatever arguments treq gives it."""

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


_NO_COOKIES = _NoCookies()


def carried(send: Callable[[], Deferred[IResponse]], clock: IReactorTime) -> Deferred[IResponse]:
    """Have treq make the request that `send` makes by an agent or a pool of the library's user.

    treq would follow redirects, decode bodies, keep cookies and rewrite headers. These arguments turn that
    off, and the agent ignores the request that treq built.
    """
    client = HTTPClient(_Verbatim(send), cookiejar=cast(Any, _NO_COOKIES))
    answer: Any = client.request(
        "GET", _ANYWHERE, allow_redirects=False, unbuffered=True, reactor=cast(Any, clock)
    )
    return cast("Deferred[IResponse]", answer)
