"""The proxy as a twisted.web resource: convert this request, or relay it?"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, BinaryIO, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer, HTTPConnectionPool
from twisted.web.iweb import IAgent, IBodyProducer
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from stream_proxy.config import IncludeUsage, Limits, parse_upstream_url
from stream_proxy.convert import Conversion, Terms
from stream_proxy.decide import Kind, call_to_convert, convertible_kind, origin_form
from stream_proxy.downstream import answer_error
from stream_proxy.errors import APIError, internal_error, invalid_request
from stream_proxy.handshakes import wants_websocket
from stream_proxy.headers import RawHeader, request_headers
from stream_proxy.incoming import BodyTooLargeError, IncomingBody
from stream_proxy.memory import RefusalMemory
from stream_proxy.outcome import Outcome, RequestLog
from stream_proxy.relay import Relay, upload_stalled
from stream_proxy.timer import IdleTimer
from stream_proxy.upstream import Upstream
from stream_proxy.websocket import WebSocketRelay


class ProxyResource(Resource):
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
    :raises ValueError: if `upstream_url` is no base URL.
    """

    isLeaf = True
    #: Our own site renders this as soon as a request's head is in.
    streamsUploads = True
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
    ) -> None:
        super().__init__()
        if reactor is None:
            from twisted.internet import reactor
        self.limits = limits if limits is not None else Limits()
        self.clock: IReactorTime = reactor
        self.log = log if log is not None else RequestLog()
        self.upstream = Upstream(
            reactor,
            parse_upstream_url(upstream_url),
            agent=agent,
            pool=pool,
            connect_seconds=self.limits.connect_seconds,
        )
        self.terms = Terms(include_usage, self.limits.timeout_seconds, self.limits.max_response_bytes)
        self.memory = RefusalMemory(self.clock.seconds)

    def render(self, request: Request) -> int:
        """Take `request` over. It is answered later, whatever happens."""
        exchange = _Exchange(self, request)
        try:
            exchange.start()
        except Exception:
            exchange.bug(Failure())
        return NOT_DONE_YET

    def close(self) -> Deferred[object]:
        """Drop the connections that are idle. Requests under way end with their clients."""
        return self.upstream.close()


class ChatCompletionsApiProxy(ProxyResource):
    """A proxy that converts chat completions only."""

    kinds = frozenset({Kind.CHAT})


class ResponsesApiProxy(ProxyResource):
    """A proxy that converts Responses only."""

    kinds = frozenset({Kind.RESPONSES})


class PassthroughApiProxy(ProxyResource):
    """A proxy that converts nothing."""

    kinds = frozenset()


class _Exchange:
    """One request, from its head to its line in the log."""

    def __init__(self, proxy: ProxyResource, request: Request) -> None:
        self._proxy = proxy
        self._request = request
        self._path = (origin_form(request.uri) or b"-").partition(b"?")[0]
        self._began = proxy.clock.seconds()
        self._target = b""
        self._headers: list[RawHeader] = []
        self._flow: Relay | Conversion | WebSocketRelay | None = None
        self._collecting: Deferred[bytes] | None = None
        self._timer: IdleTimer | None = None
        self._ended = False

    def start(self) -> None:
        request = self._request
        request.notifyFinish().addErrback(lambda _: self._gone())
        target = None if request.method == b"CONNECT" else origin_form(_below_mount(request))
        if target is None:
            self._refuse(invalid_request("The request target must be a path, or an http:// or https:// URL."))
            return
        self._target = target
        self._headers = [
            (name, value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values
        ]
        if wants_websocket(request.method, self._headers) and request.clientproto == b"HTTP/1.1":
            proxy = self._proxy
            self._run(
                WebSocketRelay(
                    proxy.clock,
                    request,
                    proxy.upstream,
                    target,
                    self._headers,
                    proxy.limits.timeout_seconds,
                    proxy.log,
                )
            )
            return
        kind = convertible_kind(request.method, target, self._headers)
        if kind is not None and kind in self._proxy.kinds:
            self._collect(kind)
        else:
            self._relay(self._incoming())

    def bug(self, failure: Failure) -> None:
        """A failure of ours, where nothing else handles it."""
        self._proxy.log.bug(failure)
        # Answer first: a flow that is cancelled has ended, and nobody would answer after that.
        if not self._ended and not self._request.startedWriting:
            self._refuse(internal_error())
        if self._flow is not None:
            self._flow.cancel()

    # The body

    def _incoming(self) -> bytes | IBodyProducer | None:
        request = self._request
        body = getattr(request, "body", None)
        framed = request.requestHeaders.hasHeader(b"Content-Length") or request.requestHeaders.hasHeader(
            b"Transfer-Encoding"
        )
        if isinstance(body, IncomingBody):
            if body.length != 0:
                return body
        elif request.requestHeaders.getRawHeaders(b"Content-Length") != [b"0"] and framed:
            return FileBodyProducer(request.content, cooperator=_cooperator(self._proxy.clock))
        return b"" if framed else None

    def _collect(self, kind: Kind) -> None:
        """Hold the body of a call that may have to be converted."""
        limits = self._proxy.limits
        body = getattr(self._request, "body", None)
        if not isinstance(body, IncomingBody):
            content = cast(BinaryIO, self._request.content)
            data = content.read(limits.max_request_bytes + 1)
            if len(data) > limits.max_request_bytes:
                self._refuse(_too_large(limits.max_request_bytes))
            else:
                self._decide(kind, data)
            return
        timer = self._timer = IdleTimer(self._proxy.clock, limits.timeout_seconds, self._stalled)
        body.touched = timer.touch
        collecting = self._collecting = body.collect(limits.max_request_bytes)
        collecting.addCallback(lambda data: self._decide(kind, data))
        collecting.addErrback(self._not_collected)

    def _not_collected(self, failure: Failure) -> None:
        if failure.check(BodyTooLargeError):
            self._refuse(_too_large(self._proxy.limits.max_request_bytes))
        elif not failure.check(CancelledError):
            self.bug(failure)

    def _stalled(self) -> None:
        self._refuse(upload_stalled(self._proxy.limits.timeout_seconds))

    def _decide(self, kind: Kind, body: bytes) -> None:
        self._stop_collecting()
        call = call_to_convert(kind, self._target, body)
        if call is None:
            self._relay(body)
            return
        proxy = self._proxy
        self._run(
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
        self._run(
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

    def _run(self, flow: Relay | Conversion | WebSocketRelay) -> None:
        self._flow = flow
        flow.done.addCallback(self._finished)
        flow.start()

    # The end

    def _gone(self) -> None:
        """The connection is gone before the answer was whole."""
        if self._flow is not None:
            self._flow.cancel()
        else:
            self._finished(Outcome.gone(0))

    def _refuse(self, error: APIError) -> None:
        self._stop_collecting()
        if self._request.channel is not None:
            answer_error(self._request, error)
        self._finished(Outcome.failed(error, len(error.envelope())))

    def _stop_collecting(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
        collecting, self._collecting = self._collecting, None
        if collecting is not None:
            collecting.cancel()

    def _finished(self, outcome: Outcome) -> None:
        if self._ended:
            return
        self._ended = True
        self._stop_collecting()
        proxy = self._proxy
        proxy.log.request(
            self._request.method,
            self._path,
            proxy.upstream.url.origin,
            self._how(),
            proxy.clock.seconds() - self._began,
            outcome,
        )

    def _how(self) -> str:
        if isinstance(self._flow, WebSocketRelay):
            return "websocket"
        return "converted" if isinstance(self._flow, Conversion) and self._flow.converted else "passed"


def _below_mount(request: Request) -> bytes:
    """The target without the path that leads to the resource, byte for byte."""
    uri: bytes = request.uri
    for _ in request.prepath or ():
        if not uri.startswith(b"/"):
            break
        end = min((place for mark in b"/?" if (place := uri.find(mark, 1)) > 0), default=len(uri))
        uri = uri[end:]
    return uri if uri and not uri.startswith(b"?") else b"/" + uri


def _cooperator(clock: IReactorTime) -> Any:
    from twisted.internet.task import Cooperator

    return Cooperator(scheduler=lambda step: clock.callLater(0, step))


def _too_large(limit: int) -> APIError:
    return invalid_request(
        f"The request body is larger than {limit} bytes; send less, or raise maxRequestBytes.", 413
    )
