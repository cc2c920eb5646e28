"""The facade as a twisted.web resource: an OpenAI API with chat completions and a list of models."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent
from twisted.web.server import Request

from stream_proxy.adapter.chat_request import parse_chat, unknown_model, unknown_path, wrong_method
from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.dialect import Dialect
from stream_proxy.adapter.flow import AdapterCall
from stream_proxy.downstream.response import respond, start_response
from stream_proxy.errors import APIError
from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.upstream_resource import UpstreamResource
from stream_proxy.http.access import Access
from stream_proxy.http.headers import RawHeader
from stream_proxy.lenient_json import encode_json
from stream_proxy.limits import Limits
from stream_proxy.request_log import Outcome, RequestLog
from stream_proxy.upstream.route import Route

# A browser page may call from anywhere; no cookie is ever looked at.
_CORS: tuple[RawHeader, ...] = (
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Expose-Headers", b"*"),
)
_PREFLIGHT_SECONDS = b"86400"
_CHAT = "/v1/chat/completions"
_MODELS = "/v1/models"


class AdapterResource(UpstreamResource):
    """``/v1/chat/completions`` and ``/v1/models``, answered out of a service that streams.

    :param upstream_url: the service's URL.
    :param config: how to talk with it.
    :param reactor: the reactor; by default the running one.
    :param limits: times and sizes, those of the configuration.
    :param agent: send requests through this agent; it stays the caller's.
    :param pool: share these connections; they stay the caller's.
    :param log: where finished requests are told.
    :param access: who may call, and as whom the service is called.
    :param route: through which proxy, trusting whom; by default as the environment and the system say.
    :raises ValueError: if `upstream_url`, `config` or `route` cannot be used.
    """

    def __init__(
        self,
        upstream_url: str,
        config: AdapterConfig | None = None,
        *,
        reactor: Any = None,
        limits: Limits | None = None,
        agent: IAgent | None = None,
        pool: HTTPConnectionPool | None = None,
        log: RequestLog | None = None,
        access: Access | None = None,
        route: Route | None = None,
    ) -> None:
        self.dialect = Dialect(upstream_url, config if config is not None else AdapterConfig())
        super().__init__(
            self.dialect.url,
            reactor=reactor,
            limits=limits,
            agent=agent,
            pool=pool,
            log=log,
            access=None if access is None else access.for_adapter(),
            route=route,
        )
        self.created = int(self.clock.seconds())

    def render(self, request: Request) -> int:
        """Take `request` over. It is answered later, whatever happens."""
        return _Routing(self, request).start()


class _Routing:
    """What a request is for."""

    def __init__(self, adapter: AdapterResource, request: Request) -> None:
        self._adapter = adapter
        self._request = request
        self._exchange = Exchange(adapter, request, headers=_CORS, how="adapted")

    def start(self) -> int:
        return self._exchange.start(self._route)

    def _route(self) -> None:
        request = self._request
        target = self._exchange.target()
        if target is None:
            return
        method = request.method.decode("ascii", "replace")
        path = target.partition(b"?")[0].decode("ascii", "replace").rstrip("/")
        if method == "OPTIONS":
            self._preflight()
        elif path == _CHAT:
            if self._allowed(method, path, "POST"):
                self._exchange.collect(self._chat)
        elif path == _MODELS:
            if self._allowed(method, path, "GET", "HEAD", "POST"):
                self._answer({"object": "list", "data": [self._model(name) for name in self._models]})
        elif path.startswith(_MODELS + "/"):
            name = unquote(path.removeprefix(_MODELS + "/"))
            if self._allowed(method, path, "GET", "HEAD"):
                if name in self._models:
                    self._answer(self._model(name))
                else:
                    self._exchange.refuse(unknown_model(name, self._models))
        else:
            self._exchange.refuse(unknown_path(method, path or "/"))

    @property
    def _models(self) -> tuple[str, ...]:
        return self._adapter.dialect.models

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._adapter.created, "owned_by": "adapter"}

    def _allowed(self, method: str, path: str, *methods: str) -> bool:
        if method in methods:
            return True
        allowed = ", ".join(methods)
        error = wrong_method(method, path, allowed)
        self._exchange.refuse(error, [(b"Allow", allowed.encode("ascii"))])
        return False

    def _answer(self, value: object) -> None:
        body = encode_json(value)
        respond(self._request, 200, None, _CORS, body)
        self._exchange.finished(Outcome(200, len(body)))

    def _preflight(self) -> None:
        """What a browser asks before it lets a page call (Fetch standard, "CORS-preflight request")."""
        wanted = self._request.requestHeaders.getRawHeaders(b"access-control-request-headers") or [b"*"]
        fields = [
            *_CORS,
            (b"Access-Control-Allow-Methods", b"GET, POST, OPTIONS"),
            # Named one by one: the wildcard does not cover Authorization.
            (b"Access-Control-Allow-Headers", b", ".join(wanted)),
            (b"Access-Control-Max-Age", _PREFLIGHT_SECONDS),
            (b"Vary", b"Access-Control-Request-Headers"),
        ]
        start_response(self._request, 204, None, fields)
        self._request.write(b"")
        self._request.finish()
        self._exchange.finished(Outcome(204, 0))

    def _chat(self, body: bytes) -> None:
        adapter = self._adapter
        try:
            asked = parse_chat(body, adapter.dialect.models)
        except APIError as error:
            self._exchange.refuse(error)
            return
        self._exchange.run(
            AdapterCall(
                adapter.clock,
                self._request,
                adapter.upstream,
                adapter.dialect,
                asked,
                _CORS,
                adapter.limits,
                adapter.log,
            )
        )
