"""Long texts under construction: they grow in blocks, and need not be joined to be encoded."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO

# Characters of a block, at least.
_BLOCK = 65_536


class LongText:
    """A text that grows.

    :param blocks: what it begins with.
    """

    __slots__ = ("_blocks", "_recent", "append", "room")

    def __init__(self, blocks: Iterable[str] = ()) -> None:
        self._blocks = list(blocks)
        self._begin_block()

    def write(self, fragment: str) -> None:
        """Add a fragment."""
        self.room -= self.append(fragment)
        if self.room < 0:
            self.end_block()

    def end_block(self) -> None:
        """Begin another block; this is due when there is no room in this one."""
        self._blocks.append(self._recent.getvalue())
        self._begin_block()

    def _begin_block(self) -> None:
        # Adding str to str copies the whole each time.
        self._recent = StringIO()
        #: Adds to the block and returns how much less room there is. To do without `write` is much faster.
        self.append = self._recent.write
        #: The characters that the block has room for.
        self.room = _BLOCK

    @property
    def size(self) -> int:
        """The number of characters."""
        return sum(map(len, self._blocks)) + self._recent.tell()

    def getvalue(self) -> str:
        """Return the whole."""
        recent = self._recent.getvalue()
        return "".join([*self._blocks, recent]) if self._blocks else recent

    def __repr__(self) -> str:
        return beginning(self.blocks())

    def blocks(self) -> list[str]:
        """Return the text in blocks."""
        return [*self._blocks, self._recent.getvalue()]


def beginning(blocks: Iterable[str]) -> str:
    """Return the representation of a text's first characters, however it is split into blocks."""
    begun: list[str] = []
    room = _BLOCK
    for block in blocks:
        begun.append(block[:room])
        room -= len(begun[-1])
        if room <= 0:
            break
    return repr("".join(begun))


def repeated_blocks(text: str, times: int) -> list[str]:
    """Return the blocks of a text that is `text` so many times."""
    per_block = max(min(_BLOCK // max(len(text), 1), times), 1)
    blocks = [text * per_block] * (times // per_block)
    return [*blocks, text * (times % per_block)]
