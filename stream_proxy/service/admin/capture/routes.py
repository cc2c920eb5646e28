"""Capture on the admin port: its state, its switch, its downloads."""

from __future__ import annotations

import re
from typing import Protocol, cast, get_args

import msgspec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import invalid_request, proxy_error
from stream_proxy.observe.capture.capture import MOST_WANTED
from stream_proxy.service.admin.access import Guard
from stream_proxy.service.admin.capture.local import MISSING, Form, State
from stream_proxy.service.admin.router import AdminResource, Visit

_NUMBER = re.compile(r"[0-9]{1,9}")


class CaptureSource(Protocol):
    """Where exchanges are captured."""

    def state(self) -> Deferred[State]:
        """Return what there is."""

    def want(self, requests: int) -> Deferred[State]:
        """Capture so many of the next requests, and return what there is."""

    def clear(self) -> Deferred[State]:
        """Drop what was captured, and return what there is."""

    def download(self, visit: Visit, form: Form) -> None:
        """Send all exchanges."""

    def download_one(self, visit: Visit, name: str, form: Form) -> None:
        """Send one exchange."""


def serve_capture(resource: AdminResource, source: CaptureSource, guard: Guard = Guard.SECRET) -> None:
    """Serve ``/capture``, ``/capture/clear``, ``/capture.har``, ``/capture.jsonl`` and ``/capture/ID.curl``.

    :param guard: who may; a capture needs a key on this machine, too, which has other users.
    """

    def want(visit: Visit) -> None:
        try:
            requests = msgspec.json.decode(visit.body, type=_Wanted).requests
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            requests = -1
        if not 0 <= requests <= MOST_WANTED:
            words = f'Send {{"requests": N}}, with a number of requests from 0 to {MOST_WANTED}.'
            visit.fail(invalid_request(words, ErrorCode.INVALID_VALUE))
        else:
            _tell(visit, source.want(requests))

    def one(visit: Visit) -> None:
        name, _, form = visit.below.rpartition(".")
        if form not in get_args(Form):
            visit.fail(invalid_request(MISSING, ErrorCode.UNKNOWN_URL))
        else:
            source.download_one(visit, name, cast(Form, form))

    def want_from_parent(visit: Visit) -> None:
        if _NUMBER.fullmatch(visit.below):
            _tell(visit, source.want(int(visit.below)))
        else:
            want(visit)

    resource.get("/capture", lambda visit: _tell(visit, source.state()), guard)
    resource.post("/capture", want, guard)
    resource.post("/capture/want/", want_from_parent, guard)
    resource.post("/capture/clear", lambda visit: _tell(visit, source.clear()), guard)
    resource.get("/capture.har", lambda visit: source.download(visit, "har"), guard)
    resource.get("/capture.jsonl", lambda visit: source.download(visit, "jsonl"), guard)
    resource.get("/capture/", one, guard)


class _Wanted(msgspec.Struct):
    requests: int


def _tell(visit: Visit, coming: Deferred[State]) -> None:
    """Send a state when it comes."""

    def came(state: State) -> None:
        visit.gone = None
        visit.json(state)

    def failed(failure: Failure) -> None:
        visit.fail(proxy_error(ErrorCode.UPSTREAM_UNREACHABLE, "No worker answers."))

    visit.gone = coming.cancel
    coming.addCallbacks(came, failed)
