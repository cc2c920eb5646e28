"""Pacing of a body: work beyond what came over the network is spread over turns of the reactor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from stream_proxy.errors import APIError
from stream_proxy.transport.timers import Timeout
from stream_proxy.upstream.response import UpstreamResponse

#: Bytes beyond those that came that are worked on before other connections are served: a little more than one
#: read brings, so that plain bodies never wait. The worst, the smallest events, take 50 ms for these.
TURN_BYTES = 2**16 + 2**14


class PacedBody:
    """Body of one response, worked on in steps.

    As long as the work is no more than what came over the network, it is done as that comes. When little
    data holds much (compression), or is much work, the upstream is paused and the rest is done over the next
    turns of the reactor. Whoever takes the results may pause all of it.

    :param clock: the reactor.
    :param response: the response.
    :param work: takes a read at once and returns the steps of the work on it, each as the number of bytes
        that it was about.
    :param ended: called like :meth:`BodySink.body_ended` when all these are done; returns the steps of the
        work on the end.
    :param failed: called with the failure of a step, which is the last one.
    """

    def __init__(
        self,
        clock: IReactorTime,
        response: UpstreamResponse,
        work: Callable[[bytes], Iterator[int]],
        ended: Callable[[APIError | None], Iterator[int]],
        failed: Callable[[Failure], None],
    ) -> None:
        self._response = response
        self._work = work
        self._ended = ended
        self._failed = failed
        self._reads: deque[Iterator[int]] = deque()
        self._left = TURN_BYTES
        self._next_turn = Timeout(clock)
        self._running = False
        self._held = False
        self._paused = False
        self._stopped = False

    def stop(self) -> None:
        """Take no more steps: the body goes to another sink, or to none."""
        self._stopped = True
        self._reads.clear()
        self._next_turn.stop()

    def pause(self) -> None:
        """Take no steps for now, and no more of the body: nobody takes their results."""
        self._held = True
        self._next_turn.stop()
        self._balance()

    def resume(self) -> None:
        """Go on, from the next turn on: what is held may be a whole turn's work."""
        if not self._held or self._stopped:
            return
        self._held = False
        if self._reads and not self._running:
            self._next_turn.start(0, self._turn)
        self._balance()

    def body_received(self, data: bytes) -> None:
        """Queue the work on a read."""
        if not self._stopped:
            self._left = min(self._left + len(data), TURN_BYTES)
            self._reads.append(self._work(data))
            self._go()

    def body_ended(self, error: APIError | None) -> None:
        """Note that there are no more reads."""
        if not self._stopped:
            self._reads.append(self._ended(error))
            self._go()

    def _go(self) -> None:
        if self._stopped or self._running or self._held or self._next_turn.running:
            return
        self._running = True
        try:
            self._steps()
        except Exception:
            self.stop()
            self._failed(Failure())
        finally:
            self._running = False
        self._balance()

    def _steps(self) -> None:
        while self._reads and not self._held:
            if self._left <= 0:
                self._next_turn.start(0, self._turn)
                return
            step = next(self._reads[0], None)
            if self._stopped:
                return
            if step is None:
                self._reads.popleft()
            else:
                self._left -= step

    def _turn(self) -> None:
        self._left = TURN_BYTES
        self._go()

    def _balance(self) -> None:
        """Pause the response while steps are left, and only then."""
        paused = self._held or self._next_turn.running
        if paused is not self._paused and not self._stopped:
            self._paused = paused
            (self._response.pause if paused else self._response.resume)()
