"""Exchange: one request from its head to its line in the log, whichever flow answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from msgspec.structs import replace
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET, Request

from stream_proxy.downstream.heartbeat import Heartbeat
from stream_proxy.downstream.request import client_address, comes_through_hop, request_fields, when_gone
from stream_proxy.downstream.response import break_off, respond_error
from stream_proxy.downstream.stall import StalledError
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, internal_error, invalid_target, proxy_error
from stream_proxy.flows.body_collection import Collected, Collection, collection_of
from stream_proxy.flows.capturing import begin_capture, untap
from stream_proxy.flows.upstream_resource import UpstreamResource
from stream_proxy.http.headers import RawHeader
from stream_proxy.http.target import authority, climbing_target, climbs, origin_form
from stream_proxy.http.url import local_locations
from stream_proxy.limits import Limits
from stream_proxy.observe.log_entries import log_received, log_request
from stream_proxy.request_log import Outcome, RequestLog
from stream_proxy.upstream.client import Upstream
from stream_proxy.waiting.deadlines import schedule

# What is kept of a code: the upstream may have chosen it.
_MOST_CODE = 64


class Flow(Protocol):
    """Something that answers a request by asking the upstream, and owns all that it starts.

    However it ends, it calls :meth:`Exchange.finished`.
    """

    def start(self) -> None:
        """Ask the upstream."""

    def cancel(self) -> None:
        """End because the client has gone."""


class Exchange:
    """One request: its body if that is to be held, the flow that answers it, its line in the log.

    :param resource: the resource that the request is for.
    :param request: the client's request.
    :param mode: the mode that the log names where no flow answers.
    :param cors: the responses are the proxy's own, so that it is for the proxy to let pages read them.
    """

    def __init__(
        self,
        resource: UpstreamResource,
        request: Request,
        *,
        mode: str = "passed",
        cors: bool = False,
    ) -> None:
        self.resource = resource
        self.request = request
        #: The client's header fields, as they came.
        self.fields = request_fields(request)
        #: Fields of every response of the proxy's own.
        self.own_headers = resource.access.cors(self.fields) if cors else []
        #: The record of the request, which the flow fills.
        ledger, origin = resource.ledger, resource.upstream.url.origin
        self.record = record = ledger.begin(resource.name)
        record.method, record.mode, record.origin = request.method, mode, origin
        record.client = client_address(request)
        #: The path that leads to the resource, and the target below it, as it came.
        self._prefix, self._below = _mount(request)
        self._target = origin_form(request.uri)
        record.path = (self._target or b"-").partition(b"?")[0]
        record.request_fields = self.fields
        record.upload, record.cancel = getattr(request, "body", None), self.abandon
        if ledger.capture is not None:
            begin_capture(ledger.capture, record, request, origin)
        if resource.log.tells_steps:
            log_received(resource.log, record)
        self._flow: Flow | None = None
        self._collection: Collection | None = None
        self._dropped: str | None = None
        #: Its end is in the log.
        self.ended = False

    @property
    def clock(self) -> IReactorTime:
        """The reactor's clock."""
        return self.resource.clock

    @property
    def limits(self) -> Limits:
        """The limits of the rule."""
        return self.resource.limits

    @property
    def log(self) -> RequestLog:
        """The log of the service."""
        return self.resource.log

    @property
    def upstream(self) -> Upstream:
        """The upstream of the rule."""
        return self.resource.upstream

    def start(self, route: Callable[[Exchange], None]) -> int:
        """Watch the client and `route` the request, if it may call; return what ``render`` is to return."""
        when_gone(self.request, self._gone)
        try:
            named = authority(self.request.uri)
            fields = self.fields if named is None else [*self.fields, (b"Host", named)]
            refusal = self.resource.access.refusal(self.request.method, fields)
            if refusal is None:
                route(self)
            else:
                self.fail(*refusal)
        except Exception:
            self.bug(Failure())
        return NOT_DONE_YET

    def target(self) -> bytes | None:
        """Return the target below the resource in origin form; fail a request without one that may pass."""
        request = self.request
        below = self._below
        target = self._target if below == request.uri else origin_form(below)
        if target is None or request.method == b"CONNECT":
            self.fail(invalid_target())
        elif self.resource.is_confined and climbs(target):
            self.fail(climbing_target())
        else:
            return target
        return None

    def local(self, headers: list[RawHeader]) -> list[RawHeader]:
        """Return the upstream's fields, in which its own URL has become the proxy's."""
        return local_locations(self.upstream.url, headers, self._prefix)

    def collect(
        self, then: Collected, *, scanned: bool = False, update: Callable[[bytes], None] | None = None
    ) -> None:
        """Call `then` with the whole body; fail one that is too large, stands still or drips.

        :param scanned: scan a large body as it comes; one that a foreign site has spooled is not.
        :param update: called with all parts of the body, before `then`.
        """
        self._collection = collection_of(
            self.request, self.clock, self.limits, then, self._broken, scanned=scanned, update=update
        )
        self._collection.start()

    def run(self, flow: Flow) -> None:
        """Have `flow` answer."""
        self._flow = flow
        self.record.decided = self.clock.seconds()
        flow.start()

    def fail(self, error: APIError, headers: Iterable[RawHeader] = ()) -> None:
        """Respond with an error, where no flow does."""
        self._stop_collecting()
        if self.request.channel is not None:
            respond_error(self.request, error, [*self.own_headers, *headers])
        self.finished(Outcome.failed(error, len(error.envelope())))

    def abandon(self) -> None:
        """End because an operator wants it: with an error, or a response that breaks off."""
        flow = self._flow
        if self.ended:
            return
        self._dropped = "an operator cancelled it"
        if self.request.startedWriting:
            break_off(self.request)
        else:
            self.fail(proxy_error(ErrorCode.CANCELLED, "An operator of the proxy cancelled this request."))
        if flow is not None:
            flow.cancel()

    def bug(self, failure: Failure) -> None:
        """End with a failure of ours that nothing else handles."""
        self.log.bug(failure)
        flow = self._flow
        # Respond first: a flow that is cancelled has ended, and nobody would respond after that.
        if self.ended:
            return
        if self.request.startedWriting:
            break_off(self.request)
        else:
            self.fail(internal_error())
        if flow is not None:
            flow.cancel()

    def finished(self, outcome: Outcome) -> None:
        """End the exchange and log it. Later calls are ignored."""
        if self.ended:
            return
        self.ended = True
        self._stop_collecting()
        # The flow refers to the exchange: else only the cycle collector would free both, and the body.
        flow, self._flow = self._flow, None
        if self._dropped is not None:
            outcome = replace(outcome, problem=self._dropped)
        resource, record = self.resource, self.record
        if outcome.status == 404 and flow is not None:
            resource.not_found(self._below.partition(b"?")[0])
        record.status, record.sent = outcome.status, outcome.sent
        record.problem, record.detail = outcome.problem, outcome.detail
        if outcome.code is not None:
            record.code = outcome.code[:_MOST_CODE]
        if record.capture is not None:
            untap(self.request)
        resource.ledger.end(record)
        log_request(resource.log, record)

    def _broken(self, failure: Failure) -> None:
        if isinstance(failure.value, APIError):
            self.fail(failure.value)
        else:
            self.bug(failure)

    def _gone(self, failure: Failure) -> None:
        """End because the connection has, before the response was whole."""
        if failure.check(APIError, StalledError):
            self._dropped = str(failure.value)  # the client did not leave: the connection was ended here
        self.record.left = self._dropped is None
        if self._flow is not None:
            self._flow.cancel()
        else:
            self.finished(Outcome.gone(0))

    def _stop_collecting(self) -> None:
        collection, self._collection = self._collection, None
        if collection is not None:
            collection.stop()


def heartbeat_for(exchange: Exchange, due: Callable[[], None], stopped: Callable[[], None]) -> Heartbeat:
    """Return a heartbeat for a client that waits for one JSON, by its deadlines and the rule's."""
    request = exchange.request
    when = schedule(exchange.limits.keep_alive_seconds, exchange.fields, hop=comes_through_hop(request))
    return Heartbeat(exchange.clock, request, when, due, stopped)


def _mount(request: Request) -> tuple[bytes, bytes]:
    """Return the path that leads to the resource, and the target below it, byte for byte."""
    uri: bytes = request.uri
    if not request.prepath and uri.startswith(b"/"):
        return b"", uri
    below = uri
    for _ in request.prepath or ():
        if not below.startswith(b"/"):
            break
        end = min((place for mark in b"/?" if (place := below.find(mark, 1)) > 0), default=len(below))
        below = below[end:]
    mount = uri[: len(uri) - len(below)]
    return mount, below if below and not below.startswith(b"?") else b"/" + below
