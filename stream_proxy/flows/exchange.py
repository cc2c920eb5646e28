"""One request, from its head to its line in the log, whoever answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import BinaryIO, Protocol, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET, Request

from stream_proxy.downstream.request_body import BodyTooLargeError, RequestBody
from stream_proxy.downstream.response import respond_error
from stream_proxy.downstream.stall import StalledError
from stream_proxy.errors import (
    APIError,
    body_too_large,
    body_too_slow,
    internal_error,
    invalid_request,
    upload_stalled,
)
from stream_proxy.flows.upstream_resource import UpstreamResource
from stream_proxy.http.access import CHALLENGE
from stream_proxy.http.headers import RawHeader
from stream_proxy.http.target import origin_form
from stream_proxy.request_log import Outcome
from stream_proxy.transport.idle_timer import IdleTimer


class Flow(Protocol):
    """What answers a request by asking the upstream; it owns all that it starts."""

    @property
    def done(self) -> Deferred[Outcome]:
        """Fires once with how it ended."""

    @property
    def how(self) -> str:
        """What the log calls it."""

    def start(self) -> None:
        """Ask."""

    def cancel(self) -> None:
        """The client has gone."""


class Exchange:
    """One request: its body if that is to be held, the flow that answers it, its line in the log.

    :param resource: whose request it is.
    :param request: the client's.
    :param headers: what errors go out with beside their own fields.
    :param how: what the log calls it where no flow answers.
    """

    def __init__(
        self,
        resource: UpstreamResource,
        request: Request,
        headers: Iterable[RawHeader] = (),
        how: str = "passed",
    ) -> None:
        self._how = how
        self.clock = resource.clock
        self.request = request
        self.limits = resource.limits
        self.log = resource.log
        #: The client's fields, as they came.
        self.fields: list[RawHeader] = [
            (name, value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values
        ]
        self._access = resource.access
        self._origin = resource.upstream.url.origin
        self._error_headers = list(headers)
        self._path = (origin_form(request.uri) or b"-").partition(b"?")[0]
        self._began = self.clock.seconds()
        self._flow: Flow | None = None
        self._collecting: Deferred[bytes] | None = None
        self._timer: IdleTimer | None = None
        self._dropped: str | None = None
        self._ended = False

    def start(self, begin: Callable[[], None]) -> int:
        """Watch the client and `begin`, if it may call; what to return from ``render``."""
        self.request.notifyFinish().addErrback(self._gone)
        try:
            refusal = self._access.refusal(self.request.method, self.fields)
            if refusal is None:
                begin()
            else:
                self.refuse(refusal, CHALLENGE)
        except Exception:
            self.bug(Failure())
        return NOT_DONE_YET

    def target(self) -> bytes | None:
        """The target below the resource, in origin form; a request that has none is refused."""
        request = self.request
        target = None if request.method == b"CONNECT" else origin_form(_below_mount(request))
        if target is None:
            error = invalid_request("The request target must be a path, or an http:// or https:// URL.")
            self.refuse(error)
        return target

    def bug(self, failure: Failure) -> None:
        """A failure of ours, where nothing else handles it."""
        self.log.bug(failure)
        # Answer first: a flow that is cancelled has ended, and nobody would answer after that.
        if not self._ended and not self.request.startedWriting:
            self.refuse(internal_error())
        if self._flow is not None:
            self._flow.cancel()

    def collect(self, then: Callable[[bytes], None]) -> None:
        """Hold the whole body, and go on with it; one that is too large, stands still or drips is refused."""
        limits = self.limits
        body = getattr(self.request, "body", None)
        if not isinstance(body, RequestBody):
            content = cast(BinaryIO, self.request.content)
            data = content.read(limits.max_request_bytes + 1)
            if len(data) > limits.max_request_bytes:
                self.refuse(body_too_large(limits.max_request_bytes))
            else:
                then(data)
            return

        def collected(data: bytes) -> None:
            self._stop_collecting()
            then(data)

        timer = self._timer = IdleTimer(
            self.clock, limits.timeout_seconds, self._stalled, limits.request_body_seconds
        )
        body.touched = timer.touch
        collecting = self._collecting = body.collect(limits.max_request_bytes)
        collecting.addCallback(collected)
        collecting.addErrback(self._not_collected)

    def run(self, flow: Flow) -> None:
        """Let `flow` answer."""
        self._flow = flow
        flow.done.addCallback(self.finished)
        flow.start()

    def refuse(self, error: APIError, headers: Iterable[RawHeader] = ()) -> None:
        """Answer with an error."""
        self._stop_collecting()
        if self.request.channel is not None:
            respond_error(self.request, error, [*self._error_headers, *headers])
        self.finished(Outcome.failed(error, len(error.envelope())))

    def finished(self, outcome: Outcome) -> None:
        """It is over, and told; what comes after the first is not."""
        if self._ended:
            return
        self._ended = True
        self._stop_collecting()
        if self._dropped is not None:
            outcome = replace(outcome, problem=self._dropped)
        self.log.request(
            self.request.method,
            self._path,
            self._origin,
            self._flow.how if self._flow is not None else self._how,
            self.clock.seconds() - self._began,
            outcome,
        )

    def _not_collected(self, failure: Failure) -> None:
        if failure.check(BodyTooLargeError):
            self.refuse(body_too_large(self.limits.max_request_bytes))
        elif not failure.check(CancelledError):
            self.bug(failure)

    def _stalled(self) -> None:
        if self._timer is not None and self._timer.late:
            self.refuse(body_too_slow(self.limits.request_body_seconds))
        else:
            self.refuse(upload_stalled(self.limits.timeout_seconds))

    def _gone(self, failure: Failure) -> None:
        """The connection is gone before the answer was whole."""
        if failure.check(APIError, StalledError):
            self._dropped = str(failure.value)  # the client did not leave: it was we who ended it
        if self._flow is not None:
            self._flow.cancel()
        else:
            self.finished(Outcome.gone(0))

    def _stop_collecting(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
        collecting, self._collecting = self._collecting, None
        if collecting is not None:
            collecting.cancel()


def _below_mount(request: Request) -> bytes:
    """The target without the path that leads to the resource, byte for byte."""
    uri: bytes = request.uri
    for _ in request.prepath or ():
        if not uri.startswith(b"/"):
            break
        end = min((place for mark in b"/?" if (place := uri.find(mark, 1)) > 0), default=len(uri))
        uri = uri[end:]
    return uri if uri and not uri.startswith(b"?") else b"/" + uri
