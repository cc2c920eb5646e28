"""How many connections are in use at once, and who waits for one."""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from stream_proxy.errors import overloaded


class Slot:
    """The right to use one connection."""

    def __init__(self, semaphore: DeferredSemaphore) -> None:
        self._semaphore: DeferredSemaphore | None = semaphore

    def free(self) -> None:
        """Let the next one have it; only the first call counts."""
        semaphore, self._semaphore = self._semaphore, None
        if semaphore is not None:
            semaphore.release()


class Slots:
    """So many connections to one upstream.

    :param clock: the reactor.
    :param limit: how many may be in use at once.
    :param queue: how many may wait for one.
    :param origin: the upstream's, for errors.
    """

    def __init__(self, clock: IReactorTime, limit: int, queue: int, origin: str) -> None:
        self.limit = limit
        self._clock = clock
        self._queue = queue
        self._origin = origin
        self._semaphore = DeferredSemaphore(limit)

    @property
    def in_use(self) -> int:
        """How many are taken."""
        return self._semaphore.limit - self._semaphore.tokens

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._semaphore.waiting)

    def take(self) -> Deferred[Slot]:
        """A slot, in the order of asking. Cancelling leaves the queue.

        :raises APIError: 503, if too many wait already.
        """
        semaphore = self._semaphore
        if semaphore.tokens:
            return semaphore.acquire().addCallback(Slot)
        if self.waiting >= self._queue:
            raise overloaded(self._origin, self.limit, self.waiting)
        return semaphore.acquire().addCallback(self._turn)

    def _turn(self, semaphore: DeferredSemaphore) -> Deferred[Slot]:
        # Not at once: who frees a slot is in the midst of putting its connection away.
        slot = Slot(semaphore)

        def given_up(failure: Failure) -> Failure:
            slot.free()
            return failure

        return deferLater(self._clock, 0).addCallbacks(lambda _: slot, given_up)


class Occupant:
    """A connection that occupies a slot as long as it is in use."""

    #: It has ended.
    is_gone = False
    _slot: Slot | None = None
    _occupied = True

    def occupy(self, slot: Slot) -> None:
        """Free `slot` when the use has ended, which it may have already."""
        if self._occupied:
            self._slot = slot
        else:
            slot.free()

    def vacate(self) -> None:
        """The use has ended."""
        self._occupied = False
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.free()
