"""Requests of other processes, the workers, shown on a board."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from stream_proxy.observe.board import Board
from stream_proxy.observe.figures import Encoded
from stream_proxy.observe.rows import Row
from stream_proxy.transport.reactor import IReactor
from stream_proxy.transport.timers import Timeout
from stream_proxy.transport.unix_agent import unix_agent

#: Seconds until a worker that is not there is looked for again.
_RETRY_SECONDS = 0.5
#: Seconds that a worker may take to answer.
_ANSWER_SECONDS = 10.0
#: The most bytes of one event; a snapshot has less than one hundredth.
_MOST_BYTES = 64 * 2**20

_NUMBER = re.compile(r"[0-9]{1,19}")


class _Event(Struct):
    """A snapshot or a batch of a worker's feed."""

    flight: int
    live: list[Row] = []
    recent: list[Row] = []
    upsert: list[Row] = []
    remove: list[str] = []
    ended: list[Row] = []
    figures: list[Encoded] = []


_decode = msgspec.json.Decoder(_Event).decode


class WorkersSource:
    """The ledgers of all workers, by their feeds. A worker's ids get its number in front: ``2-17``.

    :param path: returns the path of a worker's socket, by its number from 1 on; ``None`` if it has none.
    :param count: how many workers there are.
    """

    def __init__(self, reactor: IReactor, path: Callable[[int], str | None], count: int) -> None:
        self._clock: IReactorTime = reactor
        self._count = count
        # The host of a URL is the worker's number.
        self._agent = unix_agent(reactor, lambda host: path(int(host)) or "")
        self._links: list[_Link] = []

    def start(self, board: Board) -> None:
        """Begin to show requests on `board`."""
        self._links = [_Link(self, number, board) for number in range(1, self._count + 1)]
        for link in self._links:
            link.connect()

    def poll(self) -> None:
        """Do nothing: the workers' feeds come by themselves."""

    def stop(self) -> None:
        """Collect nothing more."""
        links, self._links = self._links, []
        for link in links:
            link.close()

    def later(self, timeout: Timeout, function: Callable[[], object]) -> None:
        """Call `function` when a worker that is not there may be back."""
        timeout.start(_RETRY_SECONDS, function)

    @property
    def clock(self) -> IReactorTime:
        """The reactor's clock."""
        return self._clock

    def ask(self, number: int, method: bytes, path: str) -> Deferred[IResponse]:
        """Send a request without a body to a worker."""
        url = b"http://%d%b" % (number, path.encode("ascii"))
        asked: Deferred[IResponse] = self._agent.request(method, url, Headers({b"Host": [b"localhost"]}))
        return asked

    def details(self, name: str) -> Deferred[bytes | None]:
        """Return all about a request, as JSON; ``None`` if it is not known."""
        return Deferred.fromCoroutine(self._answer(b"GET", name, ""))

    def cancel(self, name: str) -> Deferred[bytes | None]:
        """Cancel a request, and return a word about that as JSON; ``None`` if it is not under way."""
        return Deferred.fromCoroutine(self._answer(b"POST", name, "/cancel"))

    async def _answer(self, method: bytes, name: str, action: str) -> bytes | None:
        worker, _, number = name.partition("-")
        slot, _, generation = worker.partition(".")
        if not all(_NUMBER.fullmatch(part) for part in (slot, number, generation or "0")):
            return None
        if not 1 <= int(slot) <= self._count or not self._is_same(int(slot), generation):
            return None
        asked = self.ask(int(slot), method, f"/requests/{number}{action}")
        response = await asked.addTimeout(_ANSWER_SECONDS, self._clock)
        body: bytes = await readBody(response).addTimeout(_ANSWER_SECONDS, self._clock)
        if response.code != 200:
            return None
        if action:
            return body
        return msgspec.json.encode({**msgspec.json.decode(body), "id": name})

    def _is_same(self, number: int, generation: str) -> bool:
        """Report whether the process that an id comes from is still there, as far as that is known."""
        return not self._links or self._links[number - 1].generation == generation


class _Link:
    """The feed of one worker, through all its processes.

    :param number: the worker's.
    """

    def __init__(self, source: WorkersSource, number: int, board: Board) -> None:
        self._source = source
        self._number = number
        self._board = board
        self._restarts = 0
        self._rows: set[str] = set()
        self._asking: Deferred[Any] | None = None
        self._events: _Events | None = None
        self._retry = Timeout(source.clock)

    @property
    def generation(self) -> str:
        """What tells the ids of one of its processes from those of the others; empty for the first."""
        return str(self._restarts) if self._restarts else ""

    @property
    def _prefix(self) -> str:
        return f"{self._number}.{self._restarts}-" if self._restarts else f"{self._number}-"

    def connect(self) -> None:
        """Ask for the feed."""
        asking = self._asking = self._source.ask(self._number, b"GET", "/events")
        asking.addCallbacks(self._responded, self._failed)

    def close(self) -> None:
        """Listen no more."""
        self._retry.stop()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
        events, self._events = self._events, None
        if events is not None:
            events.close()

    def _responded(self, response: IResponse) -> None:
        self._asking = None
        self._events = _Events(self._came, self._lost)
        response.deliverBody(self._events)

    def _failed(self, failure: Failure) -> None:
        self._asking = None
        if not failure.check(CancelledError):
            self._source.later(self._retry, self.connect)

    def _lost(self) -> None:
        """Show no more of a process that is gone; the requests that it had ended stay."""
        if self._events is None:
            return
        self._events = None
        for name in self._rows:
            self._board.drop(name)
        self._rows = set()
        self._board.count(str(self._number), None)
        self._restarts += 1
        self._source.later(self._retry, self.connect)

    def _came(self, kind: bytes, data: bytes) -> None:
        event, board, prefix = _decode(data), self._board, self._prefix
        if kind == b"snapshot":
            rows = {prefix + row["id"] for row in event.live}
            for name in self._rows - rows:
                board.drop(name)
            self._rows = rows
            board.merge([{**row, "id": prefix + row["id"]} for row in event.recent])
        for row in (*event.live, *event.upsert):
            name = prefix + row.pop("id")
            self._rows.add(name)
            board.put(name, row)
        for each in event.remove:
            self._rows.discard(prefix + each)
            board.drop(prefix + each)
        for row in event.ended:
            board.end({**row, "id": prefix + row["id"]})
        board.count(str(self._number), event.flight)
        # The figures of a process that is gone stay.
        board.figures(prefix, event.figures)


class _Events(Protocol):
    """Server-sent events of ours: a line with the kind, and one with the data."""

    def __init__(self, came: Callable[[bytes, bytes], None], lost: Callable[[], None]) -> None:
        self._came: Callable[[bytes, bytes], None] | None = came
        self._on_loss: Callable[[], None] | None = lost
        self._buffer = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        if not self._buffer.endswith(
            b"\n\n"
        ):  # events come whole, or in pieces of which only the last ends so
            if len(self._buffer) > _MOST_BYTES:
                self._lose()
            return
        events, self._buffer = bytes(self._buffer).split(b"\n\n"), bytearray()
        for event in events:
            kind, mark, body = event.partition(b"\ndata: ")
            if mark and self._came is not None:
                self._came(kind.removeprefix(b"event: "), body)

    def close(self) -> None:
        """Take nothing more."""
        self._came = self._on_loss = None
        self._lose()

    def _lose(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        lost, self._on_loss = self._on_loss, None
        self._came = None
        if lost is not None:
            lost()
