"""Recent ends of calls, kept for the retries that follow them. Sans-I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from stream_proxy.waiting.identity import Identity

#: Seconds for which a retry finds how its call ended.
KEEP_SECONDS = 60.0

T = TypeVar("T")


class Recent(Generic[T]):
    """Values by the call that left them, each for a minute, the oldest forgotten first.

    :param seconds: the clock.
    :param most: how many are kept.
    """

    def __init__(self, seconds: Callable[[], float], most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._values: OrderedDict[bytes, tuple[float, Identity, T]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, identity: Identity, value: T) -> None:
        """Keep the value of a call."""
        self._values.pop(identity.digest, None)
        self._values[identity.digest] = self._seconds() + KEEP_SECONDS, identity, value
        if len(self._values) > self._most:
            self._values.popitem(last=False)

    def find(self, identity: Identity) -> T | None:
        """Return the value of the call that this one repeats."""
        self._forget()
        found = self._values.get(identity.digest)
        return found[2] if found is not None and identity.repeats(found[1]) else None

    def clear(self) -> None:
        """Forget all."""
        self._values.clear()

    def _forget(self) -> None:
        now = self._seconds()
        while self._values:
            until, identity, _ = next(iter(self._values.values()))
            if until > now:
                return
            del self._values[identity.digest]
