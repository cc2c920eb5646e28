"""Ring of captured exchanges, bounded by what it holds. Sans-I/O."""

from __future__ import annotations

from collections import deque

from stream_proxy.observe.capture.exchange import CapturedExchange

#: The most exchanges of a ring, and pieces of bodies and messages in all.
MOST_EXCHANGES, MOST_PIECES = 10_000, 400_000


class CaptureRing:
    """Exchanges that have ended, and the room that those under way take.

    The oldest make room for new ones. An exchange that is larger than the whole ring is cut.

    :param most_bytes: what all of them may hold.
    """

    def __init__(
        self, most_bytes: int, most_exchanges: int = MOST_EXCHANGES, most_pieces: int = MOST_PIECES
    ) -> None:
        self.most_bytes = most_bytes
        self._most_exchanges = most_exchanges
        self._most_pieces = most_pieces
        #: Bytes and pieces that are held, those of exchanges under way included.
        self.size = 0
        self.pieces = 0
        self._ended: deque[CapturedExchange] = deque()
        #: The place of the first in the order of all that have ended.
        self.first = 0

    def __len__(self) -> int:
        return len(self._ended)

    def room(self, size: int) -> bool:
        """Make room for one piece more; report whether there is."""
        while self.size + size > self.most_bytes or self.pieces >= self._most_pieces:
            if not self._ended:
                return False
            self._drop()
        self.charge(size)
        return True

    def charge(self, size: int) -> None:
        """Count one piece more, whether there is room or not."""
        self.size += size
        self.pieces += 1

    def give_back(self, size: int, pieces: int) -> None:
        """Count what an exchange has let go of."""
        self.size -= size
        self.pieces -= pieces

    def resize(self, most_bytes: int) -> None:
        """Hold no more than so many bytes from now on."""
        self.most_bytes = most_bytes
        while self._ended and self.size > most_bytes:
            self._drop()

    def add(self, exchange: CapturedExchange) -> None:
        """Keep an exchange that has ended."""
        self._ended.append(exchange)
        while len(self._ended) > self._most_exchanges or (self._ended and self.size > self.most_bytes):
            self._drop()

    def clear(self) -> None:
        """Drop all that have ended."""
        while self._ended:
            self._drop()

    def at(self, place: int) -> CapturedExchange | None:
        """Return the exchange at a place in the order of all that have ended, if it is still kept."""
        index = place - self.first
        return self._ended[index] if 0 <= index < len(self._ended) else None

    def find(self, number: int) -> CapturedExchange | None:
        """Return an exchange by its number."""
        return next((each for each in self._ended if each.number == number), None)

    def _drop(self) -> None:
        dropped = self._ended.popleft()
        self.first += 1
        self.give_back(dropped.size, dropped.count)
