"""Messages between the process that was started and its workers, in both directions.

Commands go to the worker as MessagePack, which can hold infinity, unlike JSON; each follows its length. Open
sockets travel over the same UNIX connection (SCM_RIGHTS), those of a command before its end. Records come
back through a pipe, each as a line of JSON.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct
from twisted.internet.interfaces import IAddress, IFileDescriptorReceiver
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from stream_proxy.service.configuration.types import Config
from stream_proxy.service.metrics.figures import Figures
from stream_proxy.transport.reactor import IReactor

#: The worker's descriptor of the connection for commands. If it ends, the parent is gone.
COMMANDS = 0
#: The worker's descriptor of the pipe for records.
RECORDS = 3

#: Signals that the parent handles and the workers ignore: terminals and service managers send them to all
#: processes of a service at once.
PARENTS_SIGNALS = frozenset((signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))

#: The size of the length in front of a command.
_HEAD = 4
#: How many descriptors one message carries; the system's limit is 253.
_MOST_DESCRIPTORS = 200


class Serve(Struct, frozen=True, tag="serve"):
    """Serve a configuration from now on.

    ``endpoints`` describe the sockets that come with the command, in their order; sockets that the worker has
    already do not come again. ``log_level``: see :class:`~stream_proxy.request_log.RequestLog`. ``observe``:
    the path of the UNIX socket on which the worker shows its requests, if it is to. ``offer``: that on which
    it gives the answers away that it keeps for retries. ``leaving``: the ports will close soon, and nothing
    but that has changed for a worker that serves already.
    """

    config: Config
    endpoints: tuple[str, ...]
    log_level: str
    observe: str | None = None
    offer: str | None = None
    leaving: bool = False


class Kept(Struct, frozen=True, tag="kept"):
    """Calls with these digests are kept by another worker, whose socket has this path, or not any more."""

    path: str
    digests: tuple[bytes, ...]
    there: bool


class Stop(Struct, frozen=True, tag="stop"):
    """Let running requests end, then exit."""


class Abort(Struct, frozen=True, tag="abort"):
    """Abort running requests."""


Command = Serve | Kept | Stop | Abort


class Line(Struct, frozen=True, array_like=True, tag="line"):
    """An entry of the log; its text may have several lines, or be a JSON object."""

    time: float
    level: str
    namespace: str
    system: str | None
    text: str
    as_json: bool = False


class Ready(Struct, frozen=True, array_like=True, tag="ready"):
    """The worker listens."""


class KeptHere(Struct, frozen=True, array_like=True, tag="kept"):
    """The worker keeps a call with this digest, or does not any more."""

    digest: bytes
    there: bool


Record = Line | Ready | Figures | KeptHere

_decode_command = msgspec.msgpack.Decoder(Command).decode
#: Raises :class:`msgspec.DecodeError`.
decode_record = msgspec.json.Decoder(Record).decode


def packed(command: Command) -> bytes:
    """Encode a command, with its length."""
    data = msgspec.msgpack.encode(command)
    return len(data).to_bytes(_HEAD) + data


class CommandSender:
    """The parent's end of the connection for commands.

    :param connection: one end of a socket pair.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection

    def send(self, command: Command, descriptors: Sequence[int] = ()) -> None:
        """Send a command; `descriptors` may be closed afterwards.

        :raises OSError: the worker is gone, or has not read for so long that it must be broken.
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
        """Close the connection when the worker is gone."""
        self._connection.close()


@implementer(IFileDescriptorReceiver)
class CommandReceiver(Protocol):
    """The worker's end of the connection for commands.

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
            command = _decode_command(self._data[_HEAD:end])
            self._data = self._data[end:]
            count = len(command.endpoints) if isinstance(command, Serve) else 0
            taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
            self._command(command, taken)

    def connectionLost(self, reason: object = None) -> None:
        self._lost()


class _ReceiverFactory(Factory):
    """A factory for the one connection that there is."""

    noisy = False

    def __init__(self, receiver: CommandReceiver) -> None:
        self._receiver = receiver

    def buildProtocol(self, addr: IAddress | None) -> CommandReceiver:
        return self._receiver


def receive(reactor: IReactor, descriptor: int, receiver: CommandReceiver) -> None:
    """Connect `receiver` to one end of a socket pair."""
    os.set_blocking(descriptor, False)
    reactor.adoptStreamConnection(descriptor, socket.AF_UNIX, _ReceiverFactory(receiver))
