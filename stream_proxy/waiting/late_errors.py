"""Late errors: those that a client was sent after an early head, and so without their status. Sans-I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from stream_proxy.waiting.identity import Identity

#: Seconds for which a retry gets the error of its call, with its status.
KEEP_SECONDS = 60.0
#: How many are kept.
_MOST = 256
#: Errors after which the same call may well succeed.
_PASSING = (408, 409, 429)

T = TypeVar("T")


def is_lasting(status: int) -> bool:
    """Report whether a call with this status would only fail again."""
    return 400 <= status < 500 and status not in _PASSING


class LateErrors(Generic[T]):
    """Errors by the call that they answer, the oldest forgotten first.

    :param seconds: the clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._errors: OrderedDict[bytes, tuple[float, Identity, T]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._errors)

    def add(self, identity: Identity, error: T) -> None:
        """Keep the error of a call."""
        self._errors.pop(identity.digest, None)
        self._errors[identity.digest] = self._seconds() + KEEP_SECONDS, identity, error
        if len(self._errors) > _MOST:
            self._errors.popitem(last=False)

    def find(self, identity: Identity) -> T | None:
        """Return the error of the call that this one repeats."""
        self._forget()
        found = self._errors.get(identity.digest)
        return found[2] if found is not None and identity.repeats(found[1]) else None

    def clear(self) -> None:
        """Forget all."""
        self._errors.clear()

    def _forget(self) -> None:
        now = self._seconds()
        while self._errors:
            until, identity, _ = next(iter(self._errors.values()))
            if until > now:
                return
            del self._errors[identity.digest]
