"""Closing of a client connection: how it ends, and the last that its client is sent."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Protocol

import msgspec
from twisted.internet.interfaces import IPullProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, proxy_error
from stream_proxy.transport.eager_write import tcp_connection
from stream_proxy.transport.timers import Timeout
from stream_proxy.transport.tuning import is_half_closeable

#: After a response that came before the upload was over: how long the rest of that may take, and pause.
LINGER_SECONDS = 30.0
LINGER_IDLE_SECONDS = 5.0
#: Connections that were opened together reach their age at different times: by so much of it they differ.
_AGE_JITTER = 0.1


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


class State(Enum):
    """How far a connection is on its way to its end."""

    OPEN = auto()
    #: It is closed once everything is sent.
    FLUSHING = auto()
    #: Our end is closed; what the client still sends is read and dropped, up to its own close.
    LINGERING = auto()
    #: It is reset once everything is sent.
    RESETTING = auto()


class ClosableChannel(Protocol):
    """Connection that can be closed."""

    transport: Any

    @property
    def is_taking(self) -> bool:
        """Whether a response is still on its way."""

    def setTimeout(self, period: float | None) -> float | None:
        """Limit how long the client may be idle."""

    def close_after_writes(self) -> None:
        """Close once everything is sent."""

    @property
    def is_idle(self) -> bool:
        """Whether no request has begun."""

    def loseConnection(self) -> None:
        """Close after what was written."""

    def abort(self) -> None:
        """Drop the connection."""


class Closing:
    """End of a client connection, step by step.

    :param clock: the reactor.
    :param age: how many seconds the connection may serve requests; 0: any time.
    """

    __slots__ = ("_abort", "_clock", "_next", "_old", "going_away", "reason", "state")

    def __init__(self, clock: IReactorTime, age: float) -> None:
        self.state = State.OPEN
        self._clock = clock
        self._old = clock.seconds() + age * random.uniform(1 - _AGE_JITTER, 1 + _AGE_JITTER) if age else None
        #: What requests are told in place of the reason that the transport gives.
        self.reason: Failure | None = None
        #: Ends the protocol that has taken the connection over, such as WebSocket.
        self.going_away: Callable[[], None] | None = None
        self._next = Timeout(clock)
        self._abort = Timeout(clock)

    @property
    def begun(self) -> bool:
        """Whether no more requests, or parts of one, are read."""
        return self.state is not State.OPEN

    @property
    def is_due(self) -> bool:
        """Whether the connection has reached its age."""
        return self._old is not None and self._clock.seconds() >= self._old

    def abort_later(self, seconds: float, abort: Callable[[], None]) -> None:
        """Call `abort` after so many seconds if the connection has not ended by then."""
        self._abort.start(seconds, abort)

    def when_idle(self, channel: ClosableChannel, seconds: float) -> None:
        """Close a connection that is idle after so many seconds, and at the end of the turn after that."""
        if not self.begun:
            # The rest of a turn need not have read what the client has sent by now; the next one has.
            self._next.start(seconds, lambda: self._next.start(0, lambda: self._end_idle(channel)))

    def _end_idle(self, channel: ClosableChannel) -> None:
        if channel.is_idle:
            channel.loseConnection()

    def close(self, channel: ClosableChannel, idle_seconds: float | None, *, linger: bool) -> None:
        """Close after what was written.

        :param idle_seconds: how long the client may read nothing.
        :param linger: the client may still be sending. A close with unread bytes is a reset, which can
            destroy the response on its way to the client.
        """
        transport = channel.transport
        if not (linger and is_half_closeable(transport)):
            # A transport that cannot be half closed, such as TLS, waits for the client's own close.
            self.state = State.FLUSHING
            channel.setTimeout(LINGER_SECONDS if linger else idle_seconds)
            channel.close_after_writes()
            return
        self.state = State.LINGERING
        self._next.start(LINGER_SECONDS, lambda: self._end_linger(channel))
        transport.unregisterProducer()
        transport.resumeProducing()
        transport.loseWriteConnection()
        channel.setTimeout(LINGER_IDLE_SECONDS)

    def _end_linger(self, channel: ClosableChannel) -> None:
        if channel.is_taking:
            self._next.start(LINGER_SECONDS, lambda: self._end_linger(channel))
        else:
            channel.abort()

    def reset(self, channel: ClosableChannel, idle_seconds: float | None) -> None:
        """Reset the connection after what was written.

        :param idle_seconds: how long the client may read nothing.
        """
        self.state = State.RESETTING
        channel.setTimeout(idle_seconds)
        channel.transport.unregisterProducer()
        # Under TLS, what this turn wrote reaches the connection only in the next one.
        self._next.start(0, lambda: self._reset_after_writes(channel))

    def _reset_after_writes(self, channel: ClosableChannel) -> None:
        connection = tcp_connection(channel.transport)
        if connection is None:
            channel.abort()
        else:
            connection.registerProducer(AfterLastWrite(connection, channel.abort), False)

    def stop(self) -> None:
        """Take no further step: the connection is gone."""
        self._abort.stop()
        self._next.stop()
