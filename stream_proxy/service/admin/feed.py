"""Feed of the page: what goes through the process, sent to whoever looks, as server-sent events.

A viewer gets a ``snapshot`` and then ``batch`` events, at most four a second. All get the same batches, made
once. One that does not take them in time is sent none, so that nothing waits for it but what the connection
holds already, and later a new snapshot. While nobody looks nothing is collected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.web.server import Request
from zope.interface import implementer

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import proxy_error
from stream_proxy.observe.board import Board
from stream_proxy.observe.rows import Row
from stream_proxy.service.admin.router import AdminResource, Visit, answer_later
from stream_proxy.transport.timers import Timeout

#: Seconds between two batches.
TICK_SECONDS = 0.25
#: After so many seconds without an event a comment shows that the connection lives.
IDLE_SECONDS = 15.0
#: Seconds between two snapshots for the same viewer.
CATCH_UP_SECONDS = 2.0
MOST_VIEWERS = 16
#: How long a browser waits before it connects again.
_RETRY = b"retry: 1000\n\n"
_NOT_HERE = "No such request is under way or among the last that have ended."


class Source(Protocol):
    """Where requests are seen."""

    def start(self, board: Board) -> None:
        """Begin to show requests on `board`."""

    def poll(self) -> None:
        """Bring the board up to date."""

    def stop(self) -> None:
        """Collect nothing more."""

    def details(self, name: str) -> Deferred[bytes | None]:
        """Return all about a request, as JSON; ``None`` if it is not known."""

    def cancel(self, name: str) -> Deferred[bytes | None]:
        """Cancel a request, and return a word about that as JSON; ``None`` if it is not under way."""


@implementer(IPushProducer)
class Viewer:
    """One connection to the feed."""

    def __init__(self, request: Request) -> None:
        self.request = request
        #: It takes nothing at present.
        self.paused = False
        #: It lacks something, so that it needs a snapshot.
        self.behind = True
        #: When it was sent the last snapshot, and the last bytes.
        self.caught_up = self.sent = float("-inf")

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        """Do nothing: the request says that its client has gone."""

    def send(self, data: bytes, now: float) -> None:
        """Send bytes, which it takes now."""
        self.sent = now
        self.request.write(data)


class Feed:
    """All viewers, and the board that they see while there are any.

    :param state: returns the state of the service.
    """

    def __init__(
        self, clock: IReactorTime, source: Source, state: Callable[[], Row | None] = lambda: None
    ) -> None:
        self._clock = clock
        self._source = source
        self._state = state
        self._board: Board | None = None
        self._viewers: dict[Viewer, Visit] = {}
        self._stopped = False
        self._tick = Timeout(clock)

    def attend(self, visit: Visit) -> None:
        """Answer a request with events, until its client leaves."""
        if self._stopped:
            visit.fail(proxy_error(ErrorCode.SERVER_STOPPING, "This port is about to close."))
            return
        if len(self._viewers) >= MOST_VIEWERS:
            words = f"{MOST_VIEWERS} pages show this already; close one."
            visit.fail(proxy_error(ErrorCode.SERVER_IS_OVERLOADED, words), [(b"Retry-After", b"5")])
            return
        visit.start(200, b"text/event-stream; charset=utf-8", [(b"X-Accel-Buffering", b"no")])
        request = visit.request
        request.write(_RETRY)
        if request.method == b"HEAD":
            request.finish()
            return
        viewer = Viewer(request)
        request.registerProducer(viewer, True)
        visit.gone = lambda: self._left(viewer)
        self._viewers[viewer] = visit
        if self._board is None:
            self._begin()

    def stop(self) -> None:
        """Send everybody away for good: the source may have another feed from now on."""
        self._stopped = True
        self.send_away()

    def send_away(self) -> None:
        """Send everybody away; they may come again."""
        for viewer, visit in list(self._viewers.items()):
            visit.gone = None
            self._left(viewer)
            viewer.request.unregisterProducer()
            viewer.request.finish()

    def _left(self, viewer: Viewer) -> None:
        del self._viewers[viewer]
        if not self._viewers:
            self._tick.stop()
            self._board = None
            self._source.stop()

    def _begin(self) -> None:
        board = self._board = Board()
        self._source.start(board)
        # Not at once: the request is still being rendered, and others may come with it.
        self._tick.start(0, self._next)

    def _next(self) -> None:
        board = self._board
        assert board is not None
        self._tick.start(TICK_SECONDS, self._next)
        now = self._clock.seconds()
        self._source.poll()
        board.state = self._state()
        batch = board.batch(round(now, 3))
        event = None if batch is None else b"event: batch\ndata: %b\n\n" % batch
        renewed, board.renewed = board.renewed, False
        snapshot = None
        for viewer in list(self._viewers):
            if renewed:
                viewer.behind, viewer.caught_up = True, float("-inf")
            if viewer.paused:
                viewer.behind = viewer.behind or event is not None
            elif viewer.behind:
                if now - viewer.caught_up < CATCH_UP_SECONDS:
                    continue
                if snapshot is None:
                    snapshot = b"event: snapshot\ndata: %b\n\n" % board.snapshot(round(now, 3))
                viewer.behind, viewer.caught_up = False, now
                viewer.send(snapshot, now)
            elif event is not None:
                viewer.send(event, now)
            elif now - viewer.sent >= IDLE_SECONDS:
                viewer.send(b":\n\n", now)


def serve_feed(resource: AdminResource, feed: Feed, source: Source) -> None:
    """Serve ``/events``, ``/requests/ID`` and ``/requests/ID/cancel``."""

    def cancel(visit: Visit) -> None:
        name, _, action = visit.below.partition("/")
        if action == "cancel":
            answer_later(visit, source.cancel(name), "No such request is under way.")
        else:
            answer_later(visit, source.details(""), _NOT_HERE)

    resource.get("/events", feed.attend)
    resource.get("/requests/", lambda visit: answer_later(visit, source.details(visit.below), _NOT_HERE))
    resource.post("/requests/", cancel)
