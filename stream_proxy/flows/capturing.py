"""Taps of a request whose exchange is captured: no other request has them, and none has them for longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from twisted.web.server import Request

from stream_proxy.downstream.lean_request import LeanRequest
from stream_proxy.downstream.request_body import RequestBody
from stream_proxy.http.headers import RawHeader, raw_headers
from stream_proxy.observe.capturing import ExchangeCapture
from stream_proxy.observe.ledger import RequestCapture
from stream_proxy.observe.record import Record
from stream_proxy.upstream.response import UpstreamResponse

#: Takes a read and returns the steps of the work on it.
Read: TypeAlias = Callable[[bytes], Iterator[int]]


def begin_capture(source: RequestCapture, record: Record, request: Request, origin: str) -> None:
    """Have a request captured: its body and its response are shown until :func:`untap`.

    :param origin: the upstream's.
    """
    fields = record.request_fields
    capture = record.capture = source.begin(record, request.uri, request.clientproto, fields, origin)
    body = getattr(request, "body", None)
    if isinstance(body, RequestBody):
        _tap_body(body, capture)
    write: Callable[[bytes], None] = request.write

    def written(data: bytes) -> None:
        if not capture.answered:
            capture.response_head(request.code, request.code_message, _fields(request))
        capture.response_part(data)
        write(data)

    finish: Callable[[], None] = request.finish

    def finished() -> None:
        finish()
        capture.response_end()

    # Attributes of this one request: no other one pays for the capture.
    vars(request).update(write=written, finish=finished)


def untap(request: Request) -> None:
    """Show nothing more, so that nothing refers back to the request."""
    for name in ("write", "finish"):
        vars(request).pop(name, None)
    body = getattr(request, "body", None)
    if isinstance(body, RequestBody):
        vars(body).pop("data_received", None)


def seen(record: Record, response: UpstreamResponse, read: Read) -> Read:
    """Return what takes the reads of a response: `read`, and before it the capture, if there is one."""
    capture = record.capture
    return read if capture is None else capture.reading(response.status, response.headers, read)


def _tap_body(body: RequestBody, capture: ExchangeCapture) -> None:
    if body.arrived:
        capture.request_part(body.held)
    take = body.data_received

    def received(data: bytes) -> None:
        capture.request_part(data)
        take(data)

    vars(body)["data_received"] = received


def _fields(request: Request) -> list[RawHeader]:
    """Return the fields of a response, whose first part is about to be written."""
    given = request.given_fields if isinstance(request, LeanRequest) else None
    if given is not None:
        return list(given)
    return raw_headers(request.responseHeaders.getAllRawHeaders())
