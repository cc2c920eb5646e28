"""Heartbeat for a client that waits: a head before there is a response, and a space now and then.

Load balancers, CDNs and clients give up on a connection on which nothing moves. JSON may begin with blanks
(RFC 8259 section 2), so they can have some; the status, though, is gone with the head.

The openai SDKs take a whole 200 with an error in it for a result without choices, and raise on a response
that is cut off. So an error after the head is cut off, and its JSON lacks the end, for clients behind a hop
that hides the cut (Caddy 2.6).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from msgspec.structs import replace
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.web.server import Request
from zope.interface import implementer

from stream_proxy.downstream.closing import unfinished
from stream_proxy.downstream.request import ProxyRequest
from stream_proxy.downstream.response import break_off, respond, respond_error, start_json, start_response
from stream_proxy.errors import APIError
from stream_proxy.http.headers import RawHeader
from stream_proxy.request_log import Outcome
from stream_proxy.transport.timers import Timeout

_BLANK = b" "
# Bytes of a large response that are written in one turn of the reactor.
_TURN_BYTES = 2**21
_HEAD = (
    (b"Content-Type", b"application/json"),
    (b"X-Accel-Buffering", b"no"),  # nginx would hold blanks back until its buffer is full
)


@implementer(IPushProducer)
class Heartbeat:
    """JSON response whose head goes out before the JSON is there, if that takes long.

    :param request: the client's request.
    :param schedule: seconds until the head, and then between blanks; 0: never.
    :param due: called once when it is time for the head. It calls :meth:`begin`, or :meth:`stop` if the
        request is answered in another way.
    :param stopped: called after the head if the service stops; it calls :meth:`fail`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        request: Request,
        schedule: tuple[float, float],
        due: Callable[[], None],
        stopped: Callable[[], None],
    ) -> None:
        self._request = request
        self._first, self._interval = schedule
        self._due: Callable[[], None] | None = due
        self._stopped: Callable[[], None] | None = stopped
        self._timeout = Timeout(clock)
        self._paused = False
        self._pieces: deque[bytes] = deque()  # of a large response, which are not written yet
        self._whole: Callable[[], None] | None = None
        #: Whether the head is out.
        self.begun = False
        #: How many bytes of the body are.
        self.sent = 0

    def start(self) -> None:
        """Start the clock."""
        if self._first > 0:
            self._timeout.start(self._first, self._tick)

    def stop(self) -> None:
        """Stop the heartbeat."""
        self._due = self._stopped = None
        if self.begun and isinstance(self._request, ProxyRequest):
            self._request.stopping = None
        self._timeout.stop()
        self._pieces.clear()
        self._whole = None

    def begin(self, status: int, reason: bytes | None, headers: Iterable[RawHeader]) -> None:
        """Send the head of a response of unknown length, and the first blank."""
        self.begun = True
        if isinstance(self._request, ProxyRequest):
            self._request.stopping = self._stopped
        fields = [pair for pair in headers if pair[0].lower() != b"x-accel-buffering"]
        start_response(self._request, status, reason, [*fields, *_HEAD])
        self._request.registerProducer(self, True)
        self._blank()

    def respond(self, status: int, reason: bytes | None, headers: Iterable[RawHeader], body: bytes) -> None:
        """Send the response, or the rest of it; one that is no success is cut off after the head."""
        if not self.begun:
            self.sent = len(body)
            respond(self._request, status, reason, headers, body)
        elif 200 <= status < 300:
            self._finish(body)
        else:
            self._cut(body)

    def respond_in_pieces(
        self,
        status: int,
        reason: bytes | None,
        headers: Iterable[RawHeader],
        pieces: list[bytes],
        whole: Callable[[], None],
    ) -> None:
        """Send a large response, or the rest of it, piece by piece and as fast as the client reads.

        :param whole: called once it is written.
        """
        if self.begun and not 200 <= status < 300:
            self._cut(b"".join(pieces))
            whole()
            return
        self.stop()
        self._pieces.extend(pieces)
        self._whole = whole
        if not self.begun:
            start_json(self._request, status, reason, headers, sum(map(len, pieces)))
            self._request.registerProducer(self, True)
        self._timeout.start(0, self._write_pieces)

    def fail(self, error: APIError, headers: Iterable[RawHeader]) -> None:
        """Send an error, or cut the response whose head went out with its envelope."""
        if self.begun:
            self._cut(error.envelope())
        else:
            self.sent = len(error.envelope())
            if self._request.channel is not None:
                respond_error(self._request, error, headers)

    def amended(self, outcome: Outcome) -> Outcome:
        """Return `outcome` with a note of the status that the client was sent in its place."""
        if not self.begun or outcome.status == self._request.code:
            return outcome
        return replace(outcome, detail=f"{self._request.code} had been sent")

    # A client that does not read gets no more blanks either, or they would pile up here.

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if self._pieces and not self._timeout.running:
            self._timeout.start(0, self._write_pieces)

    def stopProducing(self) -> None:
        """Do nothing: the flow hears of a lost client from its request."""

    def _tick(self) -> None:
        self._timeout.start(self._interval, self._tick)
        if not self.begun:
            if self._due is not None:
                self._due()
        elif not self._paused:
            self._blank()

    def _blank(self) -> None:
        self.sent += len(_BLANK)
        self._request.write(_BLANK)

    def _write_pieces(self) -> None:
        """Write what one turn may take, and leave the rest to the next one or to a client that reads."""
        left = _TURN_BYTES
        while self._pieces and not self._paused and left > 0:
            piece = self._pieces.popleft()
            left -= len(piece)
            self.sent += len(piece)
            self._request.write(piece)
        whole = self._whole
        if self._pieces:
            if not self._paused:
                self._timeout.start(0, self._write_pieces)
        elif whole is not None:
            self._whole = None
            self._request.unregisterProducer()
            self._request.finish()
            whole()

    def _finish(self, body: bytes) -> None:
        self.sent += len(body)
        request = self._request
        if request.channel is not None:
            request.write(body)
            request.unregisterProducer()
            request.finish()

    def _cut(self, body: bytes) -> None:
        body = unfinished(body)
        self.sent += len(body)
        request = self._request
        if request.channel is not None:
            request.write(body)
            request.unregisterProducer()
            break_off(request)
