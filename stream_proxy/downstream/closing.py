"""Pieces of closing a client connection: the last response, a body without its end, the reset after it."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec
from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, proxy_error


def service_stopping() -> APIError:
    """Return a 503: the time that running requests had when the service stopped is over."""
    return proxy_error(
        ErrorCode.SERVER_STOPPING,
        "The proxy stops, and the response was not complete; try again, or raise shutdownGraceSeconds.",
    )


def last_response(error: APIError) -> bytes:
    """Return `error` as the last response of a connection, byte for byte."""
    body = error.envelope()
    lines = [
        b"HTTP/1.1 %d %b" % (error.status, HTTPStatus(error.status).phrase.encode("ascii")),
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"Access-Control-Allow-Origin: *",  # whether a page asks need not be known yet
    ]
    if error.retry_after is not None:
        lines.append(b"Retry-After: %d" % error.retry_after)
    return b"\r\n".join([*lines, b"Connection: close", b"", body])


#: The part of a body for which it is worth looking whether it is one JSON value.
_CHECKED_BYTES = 65_536


def unfinished(body: bytes) -> bytes:
    """Return the JSON object in `body` without its last brace, which no parser takes for JSON."""
    cut = body.rstrip(b" \t\r\n")[:-1]
    if len(cut) <= _CHECKED_BYTES:
        try:
            msgspec.json.decode(cut, type=msgspec.Raw)
        except msgspec.DecodeError:
            return cut
        except RecursionError:
            pass
    return cut.rstrip(b" \t\r\n}")  # in case that something came after the object


@implementer(IPullProducer)
class AfterLastWrite:
    """Pull producer that calls `done` when a transport has sent all that was written to it.

    A transport asks a pull producer for more once at the start, and again whenever there is nothing left.
    """

    def __init__(self, transport: Any, done: Callable[[], None]) -> None:
        self._transport = transport
        self._done = done
        self._asked = False

    def resumeProducing(self) -> None:
        if self._asked:
            self._done()
        else:
            self._asked = True
            self._transport.startWriting()

    def stopProducing(self) -> None:
        """Do nothing: the connection is gone already."""
