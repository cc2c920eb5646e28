"""The facade as a twisted.web resource: an OpenAI API with chat completions and a list of models."""

from __future__ import annotations

from typing import Unpack
from urllib.parse import unquote

from twisted.web.server import Request

from stream_proxy.adapter.chat_request import parse_chat, unknown_model, unknown_path, wrong_method
from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.dialect import Dialect
from stream_proxy.adapter.flow import AdapterCall
from stream_proxy.downstream.response import respond, start_response
from stream_proxy.errors import APIError
from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.upstream_resource import ResourceOptions, UpstreamResource
from stream_proxy.http.access import Access
from stream_proxy.lenient_json import encode_json
from stream_proxy.request_log import Outcome

_PREFLIGHT_SECONDS = b"86400"
_CHAT = "/v1/chat/completions"
_MODELS = "/v1/models"


class AdapterResource(UpstreamResource):
    """``/v1/chat/completions`` and ``/v1/models``, answered out of a service that streams.

    :param upstream_url: the service's URL.
    :param config: how to talk with it.
    :param options: see :class:`~stream_proxy.flows.upstream_resource.ResourceOptions`.
    :raises ValueError: if `upstream_url`, `config` or `route` cannot be used.
    """

    def __init__(
        self, upstream_url: str, config: AdapterConfig | None = None, **options: Unpack[ResourceOptions]
    ) -> None:
        config = config if config is not None else AdapterConfig()
        self.dialect = Dialect(upstream_url, config)
        access = options.get("access") or Access()
        options["access"] = access.for_adapter(injects=config.injects)
        super().__init__(self.dialect.url, **options)
        self._created = int(self.clock.seconds())

    def render(self, request: Request) -> int:
        """Take `request` over; the response comes later, whatever happens."""
        exchange = Exchange(self, request, mode="adapted", cors=True)
        return exchange.start(self._route)

    def _route(self, exchange: Exchange) -> None:
        """Answer, or have a flow answer."""
        target = exchange.target()
        if target is None:
            return
        method = exchange.request.method.decode("ascii", "replace")
        path = target.partition(b"?")[0].decode("ascii", "replace").rstrip("/")
        models = self.dialect.models
        if method == "OPTIONS":
            _preflight(exchange)
        elif path == _CHAT:
            if _allowed(exchange, path, "POST"):
                exchange.collect(lambda body, _: self._chat(exchange, bytes(body)))
        elif path == _MODELS:
            if _allowed(exchange, path, "GET", "HEAD", "POST"):
                _respond(exchange, {"object": "list", "data": [self._model(name) for name in models]})
        elif path.startswith(_MODELS + "/"):
            name = unquote(path.removeprefix(_MODELS + "/"))
            if _allowed(exchange, path, "GET", "HEAD"):
                if name in models:
                    _respond(exchange, self._model(name))
                else:
                    exchange.fail(unknown_model(name, models))
        else:
            exchange.fail(unknown_path(method, path or "/"))

    def _model(self, name: str) -> dict[str, str | int]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "adapter"}

    def _chat(self, exchange: Exchange, body: bytes) -> None:
        exchange.record.collected = self.clock.seconds()
        try:
            chat = parse_chat(body, self.dialect.models, self.limits.max_request_values)
        except APIError as error:
            exchange.fail(error)
            return
        exchange.run(AdapterCall(exchange, self.dialect, chat))


def _allowed(exchange: Exchange, path: str, *methods: str) -> bool:
    """Report whether a path takes the request's method; fail the request if not."""
    method = exchange.request.method.decode("ascii", "replace")
    if method in methods:
        return True
    allowed = ", ".join(methods)
    exchange.fail(wrong_method(method, path, allowed), [(b"Allow", allowed.encode("ascii"))])
    return False


def _respond(exchange: Exchange, value: object) -> None:
    body = encode_json(value)
    respond(exchange.request, 200, None, exchange.own_headers, body)
    exchange.finished(Outcome(200, len(body)))


def _preflight(exchange: Exchange) -> None:
    """Answer a browser that asks before it lets a page call (Fetch standard, "CORS-preflight request")."""
    request = exchange.request
    wanted = request.requestHeaders.getRawHeaders(b"access-control-request-headers") or [b"*"]
    fields = [
        *exchange.own_headers,
        (b"Access-Control-Allow-Methods", b"GET, POST, OPTIONS"),
        # Named one by one: the wildcard does not cover Authorization.
        (b"Access-Control-Allow-Headers", b", ".join(wanted)),
        (b"Access-Control-Max-Age", _PREFLIGHT_SECONDS),
        (b"Vary", b"Access-Control-Request-Headers"),
    ]
    start_response(request, 204, None, fields)
    request.write(b"")
    request.finish()
    exchange.finished(Outcome(204, 0))
