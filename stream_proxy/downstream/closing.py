"""Pieces of closing a client connection: the last response, and the reset after the last write."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from stream_proxy.errors import APIError


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
