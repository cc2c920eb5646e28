"""Slots: the bound on connections to an upstream, and the queue for them."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from stream_proxy.errors import overloaded
from stream_proxy.transport.dead_path import PathWatch


class Slot:
    """Right to use one connection."""

    __slots__ = ("_slots",)

    def __init__(self, slots: Slots) -> None:
        self._slots: Slots | None = slots

    def free(self) -> None:
        """Give the slot to the next in the queue; only the first call counts."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots._release()


class Slots:
    """Slots for the connections to one upstream.

    :param clock: the reactor.
    :param limit: the number of slots.
    :param queue: how many requests may wait for one.
    :param origin: the upstream's, for errors.
    """

    def __init__(self, clock: IReactorTime, limit: int, queue: int, origin: str) -> None:
        self.limit = limit
        #: How many slots are taken.
        self.in_use = 0
        self._clock = clock
        self._queue = queue
        self._origin = origin
        self._waiting: deque[Deferred[Slot]] = deque()

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return len(self._waiting)

    def take_free(self) -> Slot | None:
        """Return a slot if one is free."""
        if self.in_use >= self.limit:
            return None
        self.in_use += 1
        return Slot(self)

    def take(self) -> Deferred[Slot]:
        """Return a slot, first come, first served. Cancelling the Deferred leaves the queue.

        :raises APIError: 503: the queue is full.
        """
        taken: Deferred[Slot]
        slot = self.take_free()
        if slot is not None:
            taken = Deferred()
            taken.callback(slot)
            return taken
        if self.waiting >= self._queue:
            raise overloaded(self._origin, self.limit, self.waiting)
        taken = Deferred(self._waiting.remove)
        self._waiting.append(taken)
        return taken.addCallback(self._turn)

    def _release(self) -> None:
        if self._waiting:
            self._waiting.popleft().callback(Slot(self))
        else:
            self.in_use -= 1

    def _turn(self, slot: Slot) -> Deferred[Slot]:
        # Not at once: the code that frees a slot is still putting its connection away.
        def cancelled(failure: Failure) -> Failure:
            slot.free()
            return failure

        return deferLater(self._clock, 0).addCallbacks(lambda _: slot, cancelled)


class Occupant:
    """Connection that occupies a slot as long as it is in use, and has its path watched until it ends."""

    #: Whether the connection has ended.
    is_gone = False
    #: Whether it was ended because its path is dead.
    path_is_dead = False
    transport: Any
    _slot: Slot | None = None
    _watch: PathWatch | None = None
    _occupied = True

    def occupy(self, slot: Slot) -> None:
        """Take `slot`, and free it when the use ends, or at once if it has ended already."""
        if self._occupied:
            self._slot = slot
        else:
            slot.free()

    def watch_path(self, watch: PathWatch) -> None:
        """Have `watch` end the connection if its path dies; on an idle one nothing is under way."""
        if self._watch is None and not self.is_gone:
            self._watch = watch
            watch.add(self)

    def path_died(self) -> None:
        """Drop the connection, whose path is dead."""
        self.path_is_dead = True
        self.transport.abortConnection()

    def vacate(self) -> None:
        """End the use."""
        self._occupied = False
        if self.is_gone and self._watch is not None:
            self._watch.discard(self)
            self._watch = None
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.free()
