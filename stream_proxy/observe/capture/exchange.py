"""Exchange in a capture: what the client's side saw, and what the upstream sent, with times. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.capture.bodies import PIECE_COST, Body, Intake
from stream_proxy.observe.capture.messages import MessageReader
from stream_proxy.observe.capture.notes import Notes
from stream_proxy.observe.capture.secrets import Secrets, blank_fields, blank_target, blanked, shown
from stream_proxy.observe.record import Record

#: The most bytes of a head that are kept.
HEAD_BYTES = 4096
#: Responses of the upstream to one call: there are two or three ways to ask.
_MOST_ANSWERS = 8
#: The longest message that is kept whole.
_MESSAGE_BYTES = 2**24
#: What a head costs with the objects about it, and a field, beside their bytes.
_HEAD_COST, _FIELD_COST = 1536, 160


class Head(NamedTuple):
    """Head of a request, whose target has no secrets."""

    method: bytes
    target: bytes
    version: bytes
    #: The origin of the upstream.
    origin: str


class Answer:
    """Response, of the proxy to the client or of the upstream.

    :param fields: without secrets.
    """

    __slots__ = ("at", "body", "reason", "status", "whole")

    def __init__(self, at: float, status: int, reason: bytes, fields: list[RawHeader]) -> None:
        self.at = at
        self.status = status
        self.reason = reason
        self.body = Body(fields)
        #: It did not break off.
        self.whole = False


class SocketMessage(NamedTuple):
    """Message of a WebSocket: when it was complete, whether the client sent it, its kind, its payload."""

    at: float
    sent: bool
    kind: int
    payload: bytes


class Ring(Protocol):
    """Where exchanges are kept."""

    def room(self, size: int) -> bool:
        """Make room for one piece more; report whether there is."""

    def charge(self, size: int) -> None:
        """Count one piece more, whether there is room or not."""

    def give_back(self, size: int, pieces: int) -> None:
        """Count what an exchange has let go of."""

    def add(self, exchange: CapturedExchange) -> None:
        """Keep an exchange that has ended."""


class CapturedExchange:
    """One exchange, while it goes and as long as it is kept.

    Times are seconds of the reactor's clock.

    :param record: its record, which is let go at the end.
    :param head: the head of the request, as it came.
    :param fields: the header fields of the request, as they came.
    :param ring: where it is kept.
    :param secrets: the values that no capture holds.
    :param clock: the reactor's clock.
    :param bodies: keep bodies.
    """

    def __init__(
        self,
        record: Record,
        head: Head,
        fields: Iterable[RawHeader],
        ring: Ring,
        secrets: Secrets,
        clock: Callable[[], float],
        *,
        bodies: bool,
    ) -> None:
        fields = list(fields)
        self.number = record.number
        #: What it costs, and how many pieces and messages it has.
        self.size = 0
        self.count = 0
        #: The upstream's responses, where they are not the ones that the client got.
        self.answers: list[Answer] = []
        self.answer: Answer | None = None
        self.messages: list[SocketMessage] = []
        #: The reason why messages are missing.
        self.cut: str | None = None
        live = _Live(record, ring, [secrets, shown(head.target, fields)], clock, bodies)
        self._live: _Live | None = live
        target = blank_target(head.target, live.known)[:HEAD_BYTES]
        method = blanked(head.method, live.known)[:HEAD_BYTES]
        self.head = Head(method, target, head.version, head.origin)
        self.request = Body(self._kept(live, fields))
        self.notes = Notes.of(record, live.known)
        live.begin(self, self.request)

    def take(self, size: int) -> bool:
        """Report whether there is room for so many bytes more, in one piece."""
        live = self._live
        if live is None or not live.ring.room(size):
            return False
        self.size += size
        self.count += 1
        return True

    # For the flows

    @property
    def answered(self) -> bool:
        return self.answer is not None

    def request_part(self, data: bytes) -> None:
        if self._live is not None:
            self._live.feed(self.request, data)

    def response_head(self, status: int, reason: bytes, fields: Iterable[RawHeader]) -> None:
        live = self._live
        if live is None or self.answer is not None:
            return
        reason = blanked(reason, live.known)[:HEAD_BYTES]
        self.answer = Answer(live.clock(), status, reason, self._kept(live, fields))
        if self.head.method != b"HEAD":
            live.begin(self, self.answer.body)

    def response_part(self, data: bytes) -> None:
        if self._live is not None and self.answer is not None:
            self._live.feed(self.answer.body, data)

    def response_end(self) -> None:
        if self.answer is not None:
            self.answer.whole = True

    def reading(
        self, status: int, fields: Iterable[RawHeader], read: Callable[[bytes], Iterator[int]]
    ) -> Callable[[bytes], Iterator[int]]:
        live = self._live
        if live is None or len(self.answers) == _MOST_ANSWERS:
            return read
        answer = Answer(live.clock(), status, b"", self._kept(live, fields))
        self.answers.append(answer)
        live.begin(self, answer.body)

        def seen(data: bytes) -> Iterator[int]:
            live.feed(answer.body, data)
            return read(data)

        return seen

    def socket_part(self, data: bytes, *, sent: bool) -> None:
        live = self._live
        if live is None or not live.bodies or self.cut is not None:
            return
        now = live.clock()
        for kind, payload in live.readers[sent].feed(data):
            self._add_message(live, now, kind, payload, sent=sent)

    def end(self) -> None:
        live = self._live
        if live is None:
            return
        live.end()
        self.notes = Notes.of(live.record, live.known)
        if live.record.mode == "passed":
            self._forget_answers(live.ring)
        # An upstream whose stream led to a response had sent all that was needed.
        answered = self.answer is not None and self.answer.whole and self.answer.status < 400
        for answer in self.answers:
            answer.whole = answered
        self._live = None
        live.ring.add(self)

    def _add_message(self, live: _Live, now: float, kind: int, payload: bytes, *, sent: bool) -> None:
        """Keep a message, without secrets."""
        body = Body([])
        intake = Intake(body, live.known, self)
        intake.feed(now, payload)
        intake.end(now)
        self.cut = body.cut
        whole = b"".join([piece for _, piece in body.pieces])
        if body.cut is None or whole:
            self.messages.append(SocketMessage(now, sent, kind, whole))

    def _forget_answers(self, ring: Ring) -> None:
        """Let go of what the client got as it came."""
        for answer in self.answers:
            pieces = len(answer.body.pieces)
            freed = answer.body.size + PIECE_COST * pieces
            self.size -= freed
            self.count -= pieces
            ring.give_back(freed, pieces)
        self.answers.clear()

    def _kept(self, live: _Live, fields: Iterable[RawHeader]) -> list[RawHeader]:
        """Return the fields of a head as they are kept, which is counted."""
        kept: list[RawHeader] = []
        most = HEAD_BYTES
        for name, value in blank_fields(fields, live.known):
            most -= len(name) + len(value) + 4
            if most < 0:
                kept.append((b"X-Capture-Cut", b"the head has more than %d bytes" % HEAD_BYTES))
                break
            kept.append((name, value))
        size = _HEAD_COST + _FIELD_COST * len(kept) + HEAD_BYTES - max(0, most)
        self.size += size
        self.count += 1
        live.ring.charge(size)
        return kept


class _Live:
    """What an exchange needs only while it goes."""

    def __init__(
        self, record: Record, ring: Ring, known: list[Secrets], clock: Callable[[], float], bodies: bool
    ) -> None:
        self.record = record
        self.ring = ring
        #: The values that are blanked: those of the configuration, and those that the request shows.
        self.known = known
        self.clock = clock
        self.bodies = bodies
        self.readers = {sent: MessageReader(_MESSAGE_BYTES) for sent in (False, True)}
        self._intakes: dict[int, Intake] = {}

    def begin(self, exchange: CapturedExchange, body: Body) -> None:
        """Begin to keep a body."""
        if self.bodies:
            self._intakes[id(body)] = Intake(body, self.known, exchange)
        else:
            body.cut = "bodies are not kept"

    def feed(self, body: Body, data: bytes) -> None:
        """Take a part of a body."""
        intake = self._intakes.get(id(body))
        if intake is not None:
            intake.feed(self.clock(), data)

    def end(self) -> None:
        """Take the end of all bodies."""
        for intake in self._intakes.values():
            intake.end(self.clock())
        self._intakes.clear()
