"""What an upstream refused lately, so that it need not be asked for again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum, auto

#: Providers change: a refusal is tried anew after an hour.
REMEMBER_SECONDS = 3600.0


class Refusal(Enum):
    """The things that an upstream may refuse for a model."""

    INCLUDE_USAGE = auto()
    STREAM = auto()


class RefusalMemory:
    """Refusals by model, the least recently used forgotten first.

    :param seconds: the clock.
    :param size: how many are kept.
    """

    def __init__(self, seconds: Callable[[], float], size: int = 1024) -> None:
        self._seconds = seconds
        self._size = size
        self._until: OrderedDict[tuple[Refusal, bytes], float] = OrderedDict()

    def note(self, refusal: Refusal, model: bytes) -> None:
        """`model` has just been refused this."""
        key = (refusal, model)
        self._until[key] = self._seconds() + REMEMBER_SECONDS
        self._until.move_to_end(key)
        if len(self._until) > self._size:
            self._until.popitem(last=False)

    def knows(self, refusal: Refusal, model: bytes) -> bool:
        """Whether `model` was refused this within the last hour."""
        key = (refusal, model)
        until = self._until.get(key)
        if until is None:
            return False
        if self._seconds() >= until:
            del self._until[key]
            return False
        self._until.move_to_end(key)
        return True
