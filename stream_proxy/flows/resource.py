"""The proxy as a twisted.web resource: convert this request, or relay it?"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.web.client import FileBodyProducer, HTTPConnectionPool
from twisted.web.iweb import IAgent, IBodyProducer
from twisted.web.server import Request

from stream_proxy.downstream.request_body import RequestBody
from stream_proxy.flows.call import IncludeUsage, Kind, call_to_convert, convertible_kind
from stream_proxy.flows.convert import Conversion, Terms
from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.fallbacks import RefusalMemory
from stream_proxy.flows.relay import Relay
from stream_proxy.flows.upstream_resource import UpstreamResource
from stream_proxy.flows.websocket import WebSocketRelay
from stream_proxy.http.access import Access
from stream_proxy.http.headers import RawHeader, request_headers
from stream_proxy.http.upgrade import wants_websocket
from stream_proxy.http.url import parse_upstream_url
from stream_proxy.limits import Limits
from stream_proxy.request_log import RequestLog
from stream_proxy.upstream.route import Route


class ProxyResource(UpstreamResource):
    """Everything below this resource is answered by the upstream, ordinary calls out of its stream.

    Uploads stream where the site is a :class:`~stream_proxy.ProxySite`; any other spools them first.
    Below a child of another resource, the path that led here is not part of what goes upstream.

    :param upstream_url: base URL; its path goes before every target.
    :param reactor: the reactor; by default the running one.
    :param include_usage: whether chat streams are asked for their usage: ``"auto"`` (unless the upstream
        refuses), ``"always"``, ``"never"``.
    :param limits: times and sizes, those of the configuration.
    :param agent: send requests through this agent; it stays the caller's.
    :param pool: share these connections; they stay the caller's.
    :param log: where finished requests are told.
    :param access: who may call, and as whom the upstream is called.
    :param route: through which proxy, trusting whom; by default as the environment and the system say.
    :raises ValueError: if `upstream_url` is no base URL, or `route` leads nowhere.
    """

    #: The APIs whose calls are converted.
    kinds: Collection[Kind] = frozenset(Kind)

    def __init__(
        self,
        upstream_url: str,
        *,
        reactor: Any = None,
        include_usage: IncludeUsage = "auto",
        limits: Limits | None = None,
        agent: IAgent | None = None,
        pool: HTTPConnectionPool | None = None,
        log: RequestLog | None = None,
        access: Access | None = None,
        route: Route | None = None,
    ) -> None:
        super().__init__(
            parse_upstream_url(upstream_url),
            reactor=reactor,
            limits=limits,
            agent=agent,
            pool=pool,
            log=log,
            access=access,
            route=route,
        )
        self.terms = Terms(include_usage, self.limits)
        self.memory = RefusalMemory(self.clock.seconds)

    def render(self, request: Request) -> int:
        """Take `request` over. It is answered later, whatever happens."""
        return _Routing(self, request).start()


class ChatCompletionsApiProxy(ProxyResource):
    """A proxy that converts chat completions only."""

    kinds = frozenset({Kind.CHAT})


class ResponsesApiProxy(ProxyResource):
    """A proxy that converts Responses only."""

    kinds = frozenset({Kind.RESPONSES})


class PassthroughApiProxy(ProxyResource):
    """A proxy that converts nothing."""

    kinds = frozenset()


class _Routing:
    """Which flow answers a request."""

    def __init__(self, proxy: ProxyResource, request: Request) -> None:
        self._proxy = proxy
        self._request = request
        self._exchange = Exchange(proxy, request)
        self._target = b""
        self._headers: list[RawHeader] = []

    def start(self) -> int:
        return self._exchange.start(self._route)

    def _route(self) -> None:
        request, proxy = self._request, self._proxy
        target = self._exchange.target()
        if target is None:
            return
        self._target = target
        headers = self._headers = self._exchange.fields
        if wants_websocket(request.method, headers) and request.clientproto == b"HTTP/1.1":
            seconds = proxy.limits.timeout_seconds
            self._exchange.run(
                WebSocketRelay(proxy.clock, request, proxy.upstream, target, headers, seconds, proxy.log)
            )
            return
        kind = convertible_kind(request.method, target, headers)
        if kind is not None and kind in proxy.kinds:
            self._exchange.collect(lambda body: self._decide(kind, body))
        else:
            self._relay(self._incoming())

    def _incoming(self) -> bytes | IBodyProducer | None:
        request = self._request
        body = getattr(request, "body", None)
        framed = request.requestHeaders.hasHeader(b"Content-Length") or request.requestHeaders.hasHeader(
            b"Transfer-Encoding"
        )
        if isinstance(body, RequestBody):
            if body.length != 0:
                return body
        elif request.requestHeaders.getRawHeaders(b"Content-Length") != [b"0"] and framed:
            return FileBodyProducer(request.content, cooperator=_cooperator(self._proxy.clock))
        return b"" if framed else None

    def _decide(self, kind: Kind, body: bytes) -> None:
        call = call_to_convert(kind, self._target, body)
        if call is None:
            self._relay(body)
            return
        proxy = self._proxy
        self._exchange.run(
            Conversion(
                proxy.clock,
                self._request,
                proxy.upstream,
                self._target,
                self._headers,
                call,
                body,
                proxy.terms,
                proxy.memory,
                proxy.log,
            )
        )

    def _relay(self, body: bytes | IBodyProducer | None) -> None:
        proxy = self._proxy
        self._exchange.run(
            Relay(
                proxy.clock,
                self._request,
                proxy.upstream,
                self._target,
                request_headers(self._headers),
                body,
                proxy.limits.timeout_seconds,
                proxy.log,
            )
        )


def _cooperator(clock: IReactorTime) -> Any:
    from twisted.internet.task import Cooperator

    return Cooperator(scheduler=lambda step: clock.callLater(0, step))
