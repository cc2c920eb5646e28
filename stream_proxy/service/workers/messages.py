"""What the process that was started tells its workers: commands, and with them open sockets.

A command is MessagePack, which can say what JSON cannot, such as infinity, behind its length. Sockets travel
over the same UNIX connection (SCM_RIGHTS), those of a command before its end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from stream_proxy.service.config import Config

#: How many bytes say how many follow.
_HEAD = 4
#: How many descriptors one message carries: the system's limit is 253.
_MOST_DESCRIPTORS = 200


class Serve(Struct, frozen=True, tag="serve"):
    """Serve this configuration from now on.

    ``places``: the descriptions of the sockets that come with it, in their order. What is listened on already
    does not come again. ``log_level``: see :class:`~stream_proxy.request_log.RequestLog`.
    """

    config: Config
    places: tuple[str, ...]
    log_level: str


class Stop(Struct, frozen=True, tag="stop"):
    """End what is under way, and then yourself."""


class Abort(Struct, frozen=True, tag="abort"):
    """Wait no longer for what is under way."""


Command = Serve | Stop | Abort

_decoder = msgspec.msgpack.Decoder(Command)


def packed(command: Command) -> bytes:
    """A command as it travels."""
    data = msgspec.msgpack.encode(command)
    return len(data).to_bytes(_HEAD) + data


class CommandSender:
    """The parent's end.

    :param connection: one end of a socket pair.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection

    def send(self, command: Command, descriptors: Sequence[int] = ()) -> None:
        """Send a command; `descriptors` may be closed afterwards.

        :raises OSError: the worker is gone, or has not read for so long that it no longer works.
        """
        data = packed(command)
        rest = list(descriptors)
        while len(rest) > _MOST_DESCRIPTORS:
            self._send(data[:1], rest[:_MOST_DESCRIPTORS])
            data, rest = data[1:], rest[_MOST_DESCRIPTORS:]
        self._send(data, rest)

    def _send(self, data: bytes, descriptors: list[int]) -> None:
        if socket.send_fds(self._connection, [data], descriptors) < len(data):
            raise BlockingIOError("the worker reads no commands")

    def close(self) -> None:
        """The worker is gone."""
        self._connection.close()


@implementer(IFileDescriptorReceiver)
class CommandReceiver(Protocol):
    """The worker's end.

    :param command: called with each command and the descriptors that came with it.
    :param lost: called when the parent is gone.
    """

    def __init__(self, command: Callable[[Command, list[int]], None], lost: Callable[[], None]) -> None:
        self._command = command
        self._lost = lost
        self._data = b""
        self._descriptors: list[int] = []

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self._descriptors.append(descriptor)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= _HEAD:
            end = _HEAD + int.from_bytes(self._data[:_HEAD])
            if len(self._data) < end:
                break
            command = _decoder.decode(self._data[_HEAD:end])
            self._data = self._data[end:]
            count = len(command.places) if isinstance(command, Serve) else 0
            taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
            self._command(command, taken)

    def connectionLost(self, reason: object = None) -> None:
        self._lost()


def receive(reactor: Any, descriptor: int, receiver: CommandReceiver) -> None:
    """Let `receiver` have what comes on one end of a socket pair."""
    factory = Factory()
    factory.noisy = False
    factory.buildProtocol = lambda _: receiver  # type: ignore[method-assign, assignment]
    os.set_blocking(descriptor, False)
    reactor.adoptStreamConnection(descriptor, socket.AF_UNIX, factory)
