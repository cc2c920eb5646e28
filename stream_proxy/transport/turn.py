"""Turn of the reactor, at whose end each connection sends once what was written to it.

A read of one connection often leads to several writes, to the same connection or to others. Connections that
:func:`~stream_proxy.transport.eager_write.send_promptly` has prepared put their own reads into a bracket::

    turn.begin()
    try:
        protocol.dataReceived(data)
    finally:
        turn.end()

so that a protocol on one of them has nothing to do: what it writes while it handles a read is sent when
``dataReceived`` returns, in one piece for each connection and without another turn of the reactor. Other code
that writes much (a delayed call, for example) may use a bracket of its own; brackets nest, and the outermost
one sends. That of the lean reactor encloses all reads of one poll. Without a bracket, one delayed call of 0
seconds sends for all that have something to send.

A :class:`Turn` belongs to its reactor, which carries it: see :func:`turn_of`.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_log = Logger()
#: The attribute of a reactor that holds its turn.
_ATTRIBUTE = "_stream_proxy_turn"


class Sender(Protocol):
    """Connection that holds what was written to it until its turn ends."""

    def flush(self) -> None:
        """Send it. What this writes to other connections is sent at the same end."""


class Turn:
    """Turn of one reactor. Make none: ask :func:`turn_of`."""

    __slots__ = ("_clock", "_scheduled", "depth", "senders")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._scheduled = False
        #: How many brackets are open, and who is to be flushed. Reads and writes, of which there are many, do
        #: with these what :meth:`begin`, :meth:`end` and :meth:`add` do.
        self.depth = 0
        self.senders: list[Sender] = []

    def begin(self) -> None:
        """Open a bracket. Whoever does closes it with :meth:`end`, whatever is raised."""
        self.depth += 1

    def end(self) -> None:
        """Close the bracket; at the end of the outermost one, everything is sent."""
        self.depth -= 1
        if self.senders and not self.depth:
            self.flush()

    def add(self, sender: Sender) -> None:
        """Have `sender` flushed once at the end of this turn. It must not be added again before that."""
        self.senders.append(sender)
        if not self.depth:
            self.end_later()

    def end_later(self) -> None:
        """Flush all in the reactor's next turn, as nobody has opened a bracket."""
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._end_late)

    def _end_late(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Flush all who were added, and who are added meanwhile."""
        self.depth += 1  # a TLS connection that is flushed adds the one below it to the list
        for sender in self.senders:
            try:
                sender.flush()
            except Exception:  # it must not keep the others from sending
                _log.failure("Writing to a connection failed")
        self.senders.clear()
        self.depth -= 1


def turn_of(reactor: IReactorTime) -> Turn:
    """Return the turn of `reactor`, always the same one."""
    turn: Turn | None = getattr(reactor, _ATTRIBUTE, None)
    if turn is None:
        turn = Turn(reactor)
        setattr(reactor, _ATTRIBUTE, turn)
    return turn
