"""Asking: a slot, a connection, the request on it, and a second connection if a reused one was dead."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web._newclient import RequestNotSent, ResponseNeverReceived
from twisted.web.http import PROXY_AUTH_REQUIRED

from stream_proxy.errors import APIError
from stream_proxy.http.access import Access
from stream_proxy.http.body_pieces import BodyPieces
from stream_proxy.upstream.connection import Request, UpstreamConnection
from stream_proxy.upstream.connections import Connections
from stream_proxy.upstream.failures import ProxyRefusedError, request_failure
from stream_proxy.upstream.response import UpstreamResponse
from stream_proxy.upstream.slots import Slot

#: Seconds. A reused connection that dies this soon was closed by the server before it saw the request.
STALE_SECONDS = 1.0


#: What happens to a request before it is on a connection, or in place of that.
Step = Literal["queued", "connecting", "connected", "resent"]


class Asker(Protocol):
    """Owner of a request to an upstream, who is told of its response or failure, once, unless it cancels."""

    def upstream_step(self, step: Step) -> None:
        """Note a step. A request that goes out on a kept connection at once takes none."""

    def upstream_responded(self, response: UpstreamResponse) -> None:
        """Take the response, whose head is in."""

    def upstream_failed(self, failure: Failure) -> None:
        """Take the reason why there is none: a Failure of :class:`APIError`, or of a bug."""


class Asking(Protocol):
    """One request that an upstream is asked."""

    @property
    def active(self) -> bool:
        """Whether the asker is still to be told."""

    @property
    def queued(self) -> bool:
        """Whether the request waits for a slot, so that not a byte of it was sent."""

    def cancel(self) -> None:
        """Drop the request and its connection. The asker is told nothing more."""


class PooledAsking:
    """Request over a connection of ours.

    :param access: the keys, by which the response's cookies are judged.
    """

    __slots__ = (
        "__weakref__",
        "_access",
        "_asker",
        "_connection",
        "_connections",
        "_request",
        "_sent_at",
        "_slot",
        "_waiting",
        "queued",
    )

    def __init__(self, connections: Connections, request: Request, access: Access, asker: Asker) -> None:
        self.queued = False
        self._connections = connections
        self._request: Request | None = request
        self._access = access
        self._asker: Asker | None = asker
        self._slot: Slot | None = None
        self._connection: UpstreamConnection | None = None
        #: The queue for a slot, or the attempt to connect.
        self._waiting: Deferred[Any] | None = None
        #: When the request went out on a connection that had been used before: its begin, then its last byte.
        self._sent_at: float | None = None

    @property
    def active(self) -> bool:
        return self._asker is not None

    def start(self) -> None:
        """Send the request as soon as a connection may be used. The asker may be told before this returns."""
        slots = self._connections.slots
        slot = slots.take_free()
        if slot is not None:
            self._take_connection(slot)
            return
        try:
            waiting = slots.take()
        except APIError:
            self._fail(Failure())
            return
        self.queued = True
        self._note("queued")
        self._wait(waiting, self._take_connection)

    def cancel(self) -> None:
        self._asker = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
        elif self._connection is not None:
            self._connection.drop()
        self._end()

    # For the connection

    def uploaded(self) -> None:
        """Note that the last byte of a large body has been written."""
        if self._sent_at is not None:
            self._sent_at = self._connections.clock.seconds()

    def responded(self, response: UpstreamResponse) -> None:
        """Take the response."""
        if response.status == PROXY_AUTH_REQUIRED and self._connections.route.reads_requests:
            self._fail(Failure(ProxyRefusedError(response.status)))
            return
        try:
            response.headers = self._access.answer_headers(response.headers)
        except Exception:
            self._fail(Failure())
            return
        asker, self._asker = self._asker, None
        self._end()
        if asker is not None:
            asker.upstream_responded(response)

    def failed(self, failure: Failure) -> None:
        """Take the end of a connection, or whatever came in place of a response."""
        if self._is_stale(failure):
            self._connection = None
            self._note("resent")
            self._connections.make_room()
            self._connect()
        else:
            self._fail(failure)

    def _is_stale(self, failure: Failure) -> bool:
        """Report whether the request may go out once more: not one byte came on a reused connection."""
        sent_at, self._sent_at = self._sent_at, None
        request = self._request
        if sent_at is None or request is None:
            return False
        if failure.check(ResponseNeverReceived, RequestNotSent) is None:
            return False
        whole = request.body is None or isinstance(request.body, bytes | BodyPieces)
        return whole and self._connections.clock.seconds() - sent_at <= STALE_SECONDS

    def _take_connection(self, slot: Slot) -> None:
        self.queued = False
        self._slot = slot
        kept = self._connections.take()
        if kept is None:
            self._connect()
        else:
            self._sent_at = self._connections.clock.seconds()
            self._send(kept)

    def _connect(self) -> None:
        self._note("connecting")
        self._wait(self._connections.connect(), self._connected)

    def _connected(self, connection: UpstreamConnection) -> None:
        self._note("connected")
        self._send(connection)

    def _note(self, step: Step) -> None:
        if self._asker is not None:
            self._asker.upstream_step(step)

    def _wait(self, waiting: Deferred[Any], go_on: Any) -> None:
        self._waiting = waiting

        def came(result: Any) -> None:
            self._waiting = None
            go_on(result)

        def failed(failure: Failure) -> None:
            self._waiting = None
            self._fail(failure)

        waiting.addCallbacks(came, failed).addErrback(self._fail)

    def _send(self, connection: UpstreamConnection) -> None:
        request = self._request
        if request is None:  # the connection was ready when the request was cancelled
            connection.drop()
            return
        self._connection = connection
        connection.send(request, self)
        connection.watch_path(self._connections.paths)

    def _fail(self, failure: Failure) -> None:
        asker, self._asker = self._asker, None
        connections, connection = self._connections, self._connection
        if connection is not None:
            connection.drop()
        self._end()
        if asker is not None:
            asker.upstream_failed(
                request_failure(failure, connections.route.answers, connections.connect_seconds)
            )

    def _end(self) -> None:
        """Let go of everything; the slot is the connection's from now on."""
        self.queued = False
        self._request = None
        slot, self._slot = self._slot, None
        connection, self._connection = self._connection, None
        if slot is not None:
            if connection is None:
                slot.free()
            else:
                connection.occupy(slot)
