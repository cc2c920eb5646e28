"""WebSocket messages, and the handlers that respond to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """A WebSocket message."""

    payload: bytes
    binary: bool = False


class Pause(NamedTuple):
    """Seconds to wait before what follows."""

    seconds: float


class Hangup(NamedTuple):
    """The end of a WebSocket: a close frame with this payload (RFC 6455 section 5.5.1)."""

    payload: bytes


class MessageHandler(Protocol):
    """The server's side of one WebSocket.

    The iterators are read at the connection's pace, so messages may be made while they are sent.
    """

    def on_open(self) -> Iterator[Message | Pause | Hangup]:
        """Return the messages that follow the handshake."""
        ...

    def on_message(self, message: Message) -> Iterator[Message | Pause | Hangup]:
        """Return the messages that respond to `message`."""
        ...


class Echo:
    """A handler that sends each message back."""

    def on_open(self) -> Iterator[Message]:
        """Return no message."""
        return iter(())

    def on_message(self, message: Message) -> Iterator[Message]:
        """Return `message` itself."""
        return iter((message,))
