"""Body of a response to a converted call, through its stages: inspected, then aggregated or handed back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from stream_proxy.errors import APIError
from stream_proxy.flows.capturing import seen
from stream_proxy.flows.conversion.aggregation import Aggregation, JSONAggregation, StreamAggregation
from stream_proxy.flows.conversion.call import Call
from stream_proxy.flows.conversion.inspection import Inspection
from stream_proxy.flows.pacing import PacedBody
from stream_proxy.http.body_kind import BodyKind, media_type
from stream_proxy.http.content_coding import content_codings, decoder_for
from stream_proxy.http.headers import RawHeader
from stream_proxy.limits import Limits
from stream_proxy.observe.record import Record
from stream_proxy.upstream.response import UpstreamResponse


class StagedCall(Protocol):
    """Call that a staged body answers."""

    #: Its record.
    record: Record

    @property
    def has_answered(self) -> bool:
        """Whether the client was sent a head, so that no other one can be relayed to it."""

    def touch(self) -> object:
        """Note that something moved."""

    def came(self, count: int) -> None:
        """Note that so many bytes of the body came."""

    def expanded(self, count: int) -> None:
        """Note that they are so many more without their content coding."""

    def asks_again(self, status: int, beginning: bytes) -> bool:
        """Ask in another way in place of this error, if one is left, and report that."""

    def relay_body(self, headers: list[RawHeader], held: Iterable[bytes]) -> None:
        """Relay the response; the body is this call's from now on.

        :param held: what has come of it.
        """

    @property
    def count(self) -> Callable[[int], None] | None:
        """What is told of the content of a stream, if anything."""

    def aggregate(self, *, streamed: bool) -> None:
        """Note that the response will be an aggregate."""

    def succeeded(self) -> None:
        """Note that the way in which the call was made has a result."""

    def complete(self, aggregation: Aggregation) -> Iterator[int]:
        """Yield the steps of sending a result."""

    def fail(self, error: APIError) -> None:
        """End with an error."""

    def broken(self, failure: Failure) -> None:
        """End with an error or a bug."""


class StagedBody:
    """Body of one response, paced and decoded once for all stages.

    :param owner: the call, which is referred to until it calls :meth:`stop`.
    :param call: what the response answers.
    :param thorough: look at JSON until it is clear whether it is an error.
    """

    def __init__(
        self,
        owner: StagedCall,
        response: UpstreamResponse,
        call: Call,
        limits: Limits,
        clock: IReactorTime,
        *,
        thorough: bool,
    ) -> None:
        codings = content_codings(response.values(b"content-encoding"))
        media = media_type(response.values(b"content-type"))
        self._owner = owner
        self._response = response
        self._call = call
        self._limits = limits
        self._content = decoder_for(codings, limits.max_decoded_bytes)
        self._stage: Inspection | Aggregation | None = Inspection(
            response.status, media, codings, readable=self._content is not None, thorough=thorough
        )
        read = seen(owner.record, response, self._read)
        self._paced: PacedBody | None = PacedBody(clock, response, read, self._ended, owner.broken)

    @property
    def held(self) -> list[bytes]:
        """What has come while it is not clear what the response is."""
        return self._stage.held if isinstance(self._stage, Inspection) else []

    def start(self) -> None:
        """Let the body flow."""
        assert self._paced is not None
        self._response.start(self._paced)

    def stop(self) -> None:
        """Take no more steps: the body goes to another sink, or to none."""
        self._stage = None
        paced, self._paced = self._paced, None
        if paced is not None:
            paced.stop()

    def _read(self, data: bytes) -> Iterator[int]:
        """Hold a read as it came, and return the steps of the work on it."""
        if isinstance(self._stage, Inspection):
            self._stage.came(data)
        return self._steps(data)

    def _steps(self, data: bytes) -> Iterator[int]:
        """Work on a read piece by piece: little data can hold much."""
        owner = self._owner
        owner.came(len(data))
        coded = len(data)
        looked = False
        for piece in self._content.pieces(data) if self._content is not None else ():
            coded -= len(piece)
            if coded < 0:
                owner.expanded(-coded)
                coded = 0
            if self._stage is not None:
                looked = True
                yield from self._stage.feed(piece)
                aggregation = self._advance()
                if aggregation is not None:
                    yield from owner.complete(aggregation)
                    return
            yield len(piece)
            owner.touch()
        aggregation = None if looked else self._advance()  # much data can hold little, too
        if aggregation is not None:
            yield from owner.complete(aggregation)

    def _ended(self, error: APIError | None) -> Iterator[int]:
        if error is not None and isinstance(self._stage, Inspection):
            self._owner.fail(error)
            return
        aggregation = self._advance(ended=True)
        if aggregation is not None:
            if not aggregation.complete:
                yield from aggregation.end(error)
            yield from self._owner.complete(aggregation)

    def _advance(self, *, ended: bool = False) -> Aggregation | None:
        """Go on to the next stage if it is clear what the body is; return the last one if it has enough."""
        if isinstance(self._stage, Inspection):
            self._decide(self._stage, ended=ended)
        stage = self._stage
        if stage is None or isinstance(stage, Inspection):
            return None
        return stage if ended or stage.complete else None

    def _decide(self, inspection: Inspection, *, ended: bool) -> None:
        """Choose what becomes of the response, once it is clear what it is.

        :param ended: the whole body is in.
        """
        owner, response = self._owner, self._response
        kind = inspection.kind(ended=ended)
        if kind is None:
            return
        if inspection.may_fall_back and owner.asks_again(response.status, inspection.beginning):
            return
        if kind is not BodyKind.EVENTS and inspection.succeeded(kind):
            owner.succeeded()
        if kind is BodyKind.EVENTS or owner.has_answered:
            self._aggregate(inspection, kind)
        else:
            owner.relay_body(inspection.headers(kind, response.headers), inspection.held)

    def _aggregate(self, inspection: Inspection, kind: BodyKind) -> None:
        """Put one JSON together out of what has come and what will."""
        if self._content is None or kind is BodyKind.OTHER:
            raise inspection.unusable()
        streamed = kind is BodyKind.EVENTS
        aggregation: Aggregation
        if streamed:
            aggregation = StreamAggregation(
                self._call,
                self._limits,
                self._owner.record,
                self._owner.count,
            )
        else:
            aggregation = JSONAggregation(self._content, self._limits.max_response_bytes)
        self._owner.aggregate(streamed=streamed)
        self._stage = aggregation
        aggregation.feed(inspection.seen)  # about as much as one read brings: no long event
