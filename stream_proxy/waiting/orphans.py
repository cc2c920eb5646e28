"""Orphans: calls whose clients left before the answer, by the identity that a retry repeats. Sans-I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Generic, Protocol, TypeVar

from stream_proxy.waiting.identity import Identity
from stream_proxy.waiting.recent import Recent

#: How many orphans one credential may have.
MOST_OF_ONE = 4
#: How many calls are remembered whose orphan has expired.
_MOST_EXPIRED = 1000


class Kept(Protocol):
    """Orphan, as the register sees it."""

    @property
    def identity(self) -> Identity:
        """What a retry has to repeat."""

    @property
    def free(self) -> bool:
        """Whether no retry has joined it."""

    @property
    def failed(self) -> bool:
        """Whether an error is all that it has come to."""

    def end(self) -> None:
        """End without a trace; it leaves the register."""


K = TypeVar("K", bound=Kept)


class Orphans(Generic[K]):
    """Register of the orphans of a process.

    One that a retry has joined is a running call again: it holds its place in the number, but what it holds
    does not count, and only its retry ends it.

    :param most: how many there may be.
    :param most_bytes: how much they may hold together.
    :param seconds: the clock.
    """

    def __init__(self, most: int, most_bytes: int, seconds: Callable[[], float]) -> None:
        self.most = most
        self.most_bytes = most_bytes
        #: What those hold together that no retry has joined.
        self.held = 0
        #: Called with a digest when the first orphan of it is there, and when the last one is gone.
        self.announce: Callable[[bytes, bool], None] | None = None
        self._orphans: dict[bytes, list[K]] = {}
        self._of_one: Counter[bytes] = Counter()
        self._expired: Recent[bool] = Recent(seconds, _MOST_EXPIRED)
        self._closed = False

    def __len__(self) -> int:
        return self._of_one.total()

    def admits(self, identity: Identity, held: int) -> bool:
        """Report whether one more may wait, which holds so many bytes already.

        A call without a credential may not: nobody could be told from anybody else. Where there are too
        many, one that has failed makes room: calls with invented keys must not keep others away.
        """
        one = identity.credential
        if self._closed or one is None or self._of_one[one] >= MOST_OF_ONE:
            return False
        if len(self) >= self.most:
            failed = next((each for each in self._all() if each.free and each.failed), None)
            if failed is None:
                return False
            failed.end()
        return self.held + held <= self.most_bytes

    def digests(self) -> list[bytes]:
        """Return the digests of the calls."""
        return list(self._orphans)

    def add(self, orphan: K) -> None:
        """Register an orphan that was admitted."""
        identity = orphan.identity
        assert identity.credential is not None
        others = self._orphans.setdefault(identity.digest, [])
        others.append(orphan)
        self._of_one[identity.credential] += 1
        if len(others) == 1 and self.announce is not None:
            self.announce(identity.digest, True)

    def find(self, identity: Identity) -> K | None:
        """Return the oldest orphan that a call repeats, and that no other retry has joined."""
        for orphan in self._orphans.get(identity.digest, ()):
            if orphan.free and identity.repeats(orphan.identity):
                return orphan
        return None

    def grew(self, count: int) -> bool:
        """Count so many bytes more, or less; report whether they are within the bound."""
        self.held += count
        return self.held <= self.most_bytes

    def __contains__(self, orphan: K) -> bool:
        return orphan in self._orphans.get(orphan.identity.digest, ())

    def remove(self, orphan: K) -> None:
        """Remove an orphan that has ended, if it is here."""
        identity = orphan.identity
        others = self._orphans.get(identity.digest, [])
        if orphan in others:
            others.remove(orphan)
            if not others:
                del self._orphans[identity.digest]
                if self.announce is not None:
                    self.announce(identity.digest, False)
            assert identity.credential is not None
            self._of_one[identity.credential] -= 1
            if not self._of_one[identity.credential]:
                del self._of_one[identity.credential]

    def note_expired(self, identity: Identity) -> None:
        """Remember that nobody came for an orphan in time."""
        self._expired.add(identity, True)

    def has_expired(self, identity: Identity) -> bool:
        """Report whether a call repeats one whose orphan has expired."""
        return self._expired.find(identity) is not None

    def end_all(self) -> None:
        """End all orphans, those that a retry waits for together with it, and forget what has expired."""
        for orphan in list(self._all()):
            if orphan.free:
                orphan.end()
            else:
                self.remove(orphan)
        self._expired.clear()

    def close(self) -> None:
        """End all orphans, and admit none any more."""
        self._closed = True
        self.end_all()

    def _all(self) -> Iterator[K]:
        return chain.from_iterable(self._orphans.values())
