"""Proxy as a twisted.web resource: each request is converted or relayed."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, Unpack

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator
from twisted.web.client import FileBodyProducer
from twisted.web.iweb import IBodyProducer
from twisted.web.server import Request

from stream_proxy.downstream.plain_request import PlainRequest
from stream_proxy.downstream.request import is_framed
from stream_proxy.downstream.request_body import RequestBody
from stream_proxy.errors import APIError
from stream_proxy.flows.conversion.call import (
    IncludeUsage,
    Kind,
    Members,
    call_of,
    convertible_kind,
    members_of,
    model_of,
    why_by_body,
    why_by_head,
)
from stream_proxy.flows.conversion.convert import Conversion
from stream_proxy.flows.conversion.fallbacks import Fallbacks
from stream_proxy.flows.conversion.refusals import RefusalMemory
from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.relay import Relay
from stream_proxy.flows.resuming.fetching import Fetching
from stream_proxy.flows.resuming.joining import Joining
from stream_proxy.flows.resuming.resumption import CallIdentity, LostCalls
from stream_proxy.flows.upstream_resource import ResourceOptions, UpstreamResource
from stream_proxy.flows.websocket import WebSocketRelay
from stream_proxy.http.body_pieces import BodyPieces
from stream_proxy.http.headers import RawHeader, request_headers
from stream_proxy.http.json_members import members
from stream_proxy.http.json_scan import ObjectScan
from stream_proxy.http.upgrade import wants_websocket
from stream_proxy.http.url import parse_upstream_url
from stream_proxy.json_bounds import check_request


class ProxyResource(UpstreamResource):
    """Everything below this resource is answered by the upstream, ordinary calls out of its stream.

    Uploads stream where the site is a :class:`~stream_proxy.ProxySite`; any other spools them first.
    Below a child of another resource, the path that led here is not part of what goes upstream.

    :param upstream_url: base URL; its path goes before every target.
    :param include_usage: whether chat streams are asked for their usage: ``"auto"`` (unless the upstream
        refuses), ``"always"``, ``"never"``.
    :param lost: what is kept of calls whose clients left; by default of this resource's alone.
    :param options: see :class:`~stream_proxy.flows.upstream_resource.ResourceOptions`.
    :raises ValueError: if `upstream_url` is no base URL, or the route leads nowhere.
    """

    #: The APIs whose calls are converted.
    kinds: Collection[Kind] = frozenset(Kind)

    def __init__(
        self,
        upstream_url: str,
        *,
        include_usage: IncludeUsage = "auto",
        lost: LostCalls | None = None,
        **options: Unpack[ResourceOptions],
    ) -> None:
        super().__init__(parse_upstream_url(upstream_url), **options)
        self.include_usage: IncludeUsage = include_usage
        self.lost = lost or LostCalls(self.clock, self.limits.resume_max_calls, self.limits.resume_max_bytes)
        #: Tells its calls from those of other resources that share `lost`.
        self.place = self.name
        origin = self.upstream.url.origin
        log = self.log
        self.memory = RefusalMemory(
            self.clock.seconds, learned=lambda line: log.info(f"learned of {origin}: {line}")
        )

    def render(self, request: Request) -> int:
        """Take `request` over; the response comes later, whatever happens."""
        exchange = Exchange(self, request)
        return exchange.start(self._route)

    def _route(self, exchange: Exchange) -> None:
        """Choose the flow that answers."""
        target = exchange.target()
        if target is None:
            return
        request, fields = exchange.request, exchange.fields
        if not isinstance(request, PlainRequest) and _opens_websocket(request, fields):
            exchange.run(WebSocketRelay(exchange, target))
            return
        kind = convertible_kind(request.method, target, fields)
        if kind is not None and kind in self.kinds:
            identity = CallIdentity(self.lost, self.place, exchange, target)
            exchange.collect(
                lambda body, scan: self._decide(exchange, kind, target, body, scan, identity),
                scanned=True,
                update=identity.update,
            )
        else:
            if request.method == b"POST":
                why = why_by_head(target, fields) if kind is None else "API not converted"
                exchange.record.why = why
            exchange.run(Relay(exchange, target, request_headers(fields), _body(request, self.clock)))

    def _decide(
        self,
        exchange: Exchange,
        kind: Kind,
        target: bytes,
        body: bytes | BodyPieces,
        scan: ObjectScan | None,
        identity: CallIdentity,
    ) -> None:
        exchange.record.collected = self.clock.seconds()
        source = identity.settle()
        if source is not None:
            exchange.run(Joining(exchange, source, identity.keep_error))
            return
        fields: Members | None
        if isinstance(body, BodyPieces):
            fields = None if scan is None else members(scan, body)
        else:
            try:
                check_request(body, self.limits.max_request_values)
            except APIError as error:
                exchange.fail(error)
                return
            fields = members_of(body)
        call, record = call_of(kind, target, fields), exchange.record
        record.name_model(model_of(target, fields))
        if call is None:
            record.why = why_by_body(kind, target, fields)
            exchange.run(Relay(exchange, target, request_headers(exchange.fields), body))
            return
        fallbacks = Fallbacks(
            call,
            exchange.fields,
            body,
            self.include_usage,
            self.memory,
            # Once a head of ours is out, a response cannot name its content coding; nor is one kept encoded.
            compressed=not (self.limits.keep_alive_seconds or self.limits.resume_seconds),
        )
        conversion = partial(Conversion, exchange, target, fallbacks, identity)
        known, path = identity.known, identity.elsewhere
        if known is not None and path is not None:
            exchange.run(Fetching(exchange, known, path, conversion, identity.keep_error))
        else:
            exchange.run(conversion())


class ChatCompletionsApiProxy(ProxyResource):
    """Proxy that converts chat completions only."""

    kinds = frozenset({Kind.CHAT})


class ResponsesApiProxy(ProxyResource):
    """Proxy that converts Responses only."""

    kinds = frozenset({Kind.RESPONSES})


class PassthroughApiProxy(ProxyResource):
    """Proxy that converts nothing."""

    kinds = frozenset()


def _opens_websocket(request: Request, fields: list[RawHeader]) -> bool:
    return wants_websocket(request.method, fields) and request.clientproto == b"HTTP/1.1"


def _body(request: Request, clock: IReactorTime) -> bytes | IBodyProducer | None:
    """Return the body to relay: as it comes in, out of the spool of a foreign site, or none."""
    body = getattr(request, "body", None)
    framed = is_framed(request)
    if isinstance(body, RequestBody):
        if body.length != 0:
            return body
    elif framed and request.requestHeaders.getRawHeaders(b"Content-Length") != [b"0"]:
        cooperator: Any = Cooperator(scheduler=lambda step: clock.callLater(0, step))
        return FileBodyProducer(request.content, cooperator=cooperator)
    return b"" if framed else None
