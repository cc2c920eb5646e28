"""Responses to the client: heads, whole JSON bodies, errors, and ends that are no clean end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from twisted.web import server

from stream_proxy.downstream.channel import DownstreamChannel
from stream_proxy.downstream.lean_request import LeanRequest, ends_by_itself, headers_of
from stream_proxy.downstream.request import request_fields
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError
from stream_proxy.http.headers import RawHeader


def start_response(
    request: server.Request, status: int, reason: bytes | None, headers: Iterable[RawHeader]
) -> None:
    """Set the head of a response: exactly these fields, and the ``Connection: close`` that the channel needs.

    :param reason: ``None`` for the standard one.
    """
    if isinstance(request, LeanRequest):
        request.start_response(status, reason, list(headers))
        return
    close = request.responseHeaders.getRawHeaders(b"Connection")
    fields = request.responseHeaders = headers_of(headers)
    request.defaultContentType = None
    request.setResponseCode(status, reason)
    if close and ends_by_itself(request):
        fields.setRawHeaders(b"Connection", close)


def respond(
    request: server.Request, status: int, reason: bytes | None, headers: Iterable[RawHeader], body: bytes
) -> None:
    """Send a whole JSON response."""
    start_json(request, status, reason, headers, len(body))
    request.write(body)
    request.finish()


def start_json(
    request: server.Request, status: int, reason: bytes | None, headers: Iterable[RawHeader], length: int
) -> None:
    """Set the head of a JSON response with a body of so many bytes."""
    own = [(b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % length)]
    start_response(request, status, reason, [*headers, *own])


def respond_error(request: server.Request, error: APIError, headers: Iterable[RawHeader] = ()) -> None:
    """Send an error's envelope; `headers` are further fields, such as the upstream's."""
    fields = list(headers)
    # Without this field a page learns nothing of an error, not even that it was one (Fetch standard, "CORS
    # check"). Where a rule spends a key, pages that may not call it have been refused before.
    if (
        any(name.lower() == b"origin" for name, _ in request_fields(request))
        and error.code != ErrorCode.FOREIGN_ORIGIN.code
        and not any(name.lower() == b"access-control-allow-origin" for name, _ in fields)
    ):
        fields.append((b"Access-Control-Allow-Origin", b"*"))
    if error.should_retry is not None:
        fields = [(name, value) for name, value in fields if name.lower() != b"x-should-retry"]
        fields.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    if error.retry_after is not None:
        fields.append((b"Retry-After", b"%d" % error.retry_after))
    respond(request, error.status, None, fields, error.envelope())


def break_off(request: server.Request) -> None:
    """End a response that cannot be completed, so that the client sees that it is not complete."""
    channel = request.channel
    if channel is None:
        return
    if request.chunked or request.responseHeaders.hasHeader(b"Content-Length"):
        channel.loseConnection()
    elif isinstance(channel, DownstreamChannel):  # here an orderly close would be the end of the response
        channel.break_off()
    else:
        cast(Any, channel.transport).abortConnection()


def is_taking(request: server.Request) -> bool:
    """Report whether bytes wait for the client, on a connection that bounds how long they may."""
    channel = request.channel
    return isinstance(channel, DownstreamChannel) and channel.outbox.waiting
