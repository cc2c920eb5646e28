"""Lean turn of the epoll reactor (Linux only): reads are called without a log context for each.

What the reads of one poll write is sent after the last of them. A process that sleeps until it gets something
is woken up once for all of it, and each wake-up costs the sender as much as several requests' parsing.

Whatever is not just a read (a write, an end, an error) takes Twisted's way. An exception from a read is
logged with its context and drops its connection, as ever. Between two polls, delayed calls and calls from
threads are looked for, but Twisted's care of them is only taken when there is one to make.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.epollreactor import EPOLLIN, EPollReactor
from twisted.logger import Logger
from twisted.python import log

from stream_proxy.transport.turn import Turn, turn_of
from stream_proxy.transport.ways import plain_ways, uses

#: The most events that one poll returns, so that delayed calls need not wait for more.
_MOST_EVENTS: Final = 512
#: How long what one read writes may wait for other reads of the same poll, in seconds.
_MOST_WAIT: Final = 0.001
#: The longest time that one poll waits; Twisted's bound is the same.
_MOST_SECONDS: Final = 2_147_483.0
_failures: Final = Logger().failureHandler("Unexpected error in main loop")
#: Whether the reactor has the insides that are used here.
FITS: Final = (
    uses(EPollReactor.doPoll, "_poller", "poll", "_selectables", "_doReadOrWrite", "callWithLogger")
    and uses(EPollReactor._doReadOrWrite, "doRead", "_disconnectSelectable")
    and (
        uses(EPollReactor.run, "mainLoop")
        and uses(EPollReactor.mainLoop, "_started", "running", "runUntilCurrent", "timeout", "doIteration")
        and uses(EPollReactor.runUntilCurrent, "threadCallQueue", "_insertNewDelayedCalls", "_justStopped")
        and uses(EPollReactor.timeout, "_insertNewDelayedCalls", "_pendingTimedCalls", "time", "seconds")
        and uses(EPollReactor._insertNewDelayedCalls, "_newTimedCalls", "_pendingTimedCalls")
    )
)


class _LeanEPollReactor(EPollReactor):
    """Epoll reactor with a lean turn."""

    def mainLoop(self) -> None:
        while self._started:
            with _failures:
                self.runUntilCurrent()
                timeout = self.timeout()
                self.doIteration(self.running and timeout)
                self._go_on()

    def _go_on(self) -> None:
        """Take turns until there is something else to do."""
        while self._started and not (self._newTimedCalls or self.threadCallQueue or self._justStopped):
            calls = self._pendingTimedCalls
            timeout = calls[0].time - self.seconds() if calls else _MOST_SECONDS
            if not 0 < timeout <= _MOST_SECONDS:
                break
            self.doIteration(timeout)

    def doIteration(self, timeout: float | None) -> None:
        most = min(len(self._selectables), _MOST_EVENTS)
        events = self._poller.poll(-1 if timeout is None else timeout, most)
        turn = turn_of(self)
        turn.depth += 1
        try:
            self._handle(events, turn)
        finally:
            turn.end()

    def _handle(self, events: Sequence[tuple[int, int]], turn: Turn) -> None:
        """Handle what a poll returned, and send what that writes after the last, or when it has waited."""
        selectables, seconds = self._selectables, self.seconds
        due = seconds() + _MOST_WAIT
        for descriptor, event in events:
            if turn.senders and turn.depth == 1 and seconds() > due:
                turn.flush()
                due = seconds() + _MOST_WAIT
            selectable = selectables.get(descriptor)
            if selectable is None:  # an earlier event of this poll has removed it
                continue
            if event != EPOLLIN:
                log.callWithLogger(selectable, self._doReadOrWrite, selectable, descriptor, event)
                continue
            try:
                why = selectable.doRead()
            except BaseException as error:
                self._read_failed(selectable, error)
                continue
            if why:
                EPollReactor._disconnectSelectable(self, selectable, why, True)

    def _read_failed(self, selectable: Any, error: BaseException) -> None:
        """Log an error that is being handled, and end its connection.

        This is no part of the loop, whose variables would keep the traceback alive.
        """
        log.callWithLogger(selectable, log.err)
        EPollReactor._disconnectSelectable(self, selectable, error, True)


def poll_leanly(reactor: object) -> None:
    """Let `reactor`, if it is exactly Twisted's epoll reactor, take the lean turn from now on."""
    if type(reactor) is EPollReactor and FITS and not plain_ways():
        reactor.__class__ = _LeanEPollReactor
