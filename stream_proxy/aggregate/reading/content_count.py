"""Count of the events of a stream that brought something of the result."""

from __future__ import annotations

from stream_proxy.lenient_json import EXACT, is_integer

# The end of the name of each event of the Responses API that brings a piece of a text.
_PIECE = ".delta"
_PIECE_LINE = b".delta\n"


class ContentCount:
    """Count of events with content, of which undecoded blocks are counted only if somebody asks."""

    def __init__(self) -> None:
        #: Whether there was one.
        self.any = False
        #: A number that rises whenever there were more, and costs nothing.
        self.changes = 0
        self._counted = 0
        self._numbered = -1
        self._blocks: list[bytes] = []

    @property
    def events(self) -> int:
        """How many there were."""
        if self._numbered >= 0:
            return self._numbered
        return self._counted + sum([block.count(_PIECE_LINE) for block in self._blocks])

    def add(self, count: int) -> None:
        """Count so many."""
        self._counted += count
        if count:
            self.any = True
            self.changes += 1

    def add_kind(self, kind: str) -> None:
        """Count an event of the Responses API, if it brings a piece of a text."""
        if kind.endswith(_PIECE):
            self.add(1)

    def add_block(self, block: bytes) -> None:
        """Count the events of the Responses API in a part of its stream."""
        self._blocks.append(block)
        self.changes += 1
        if not self.any:
            self.any = _PIECE_LINE in block

    def settle(self, number: object = None) -> None:
        """Count what was not, and let go of it.

        :param number: the number of the stream's last event, if it has one: counting costs more than keeping.
        """
        if is_integer(number) and 0 <= number <= EXACT:
            self._numbered = number
        self._counted, self._blocks = self.events, []
