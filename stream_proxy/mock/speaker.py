"""The two ends of the mock's WebSockets, as messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Said(NamedTuple):
    """A WebSocket message."""

    payload: bytes
    binary: bool = False


class Speaker(Protocol):
    """One end of a WebSocket."""

    def opened(self) -> Iterator[Said]:
        """What it says first."""
        ...

    def heard(self, message: Said) -> Iterator[Said]:
        """What it answers."""
        ...


class Echo:
    """Repeats everything."""

    def opened(self) -> Iterator[Said]:
        """Nothing."""
        return iter(())

    def heard(self, message: Said) -> Iterator[Said]:
        """The same."""
        return iter((message,))
