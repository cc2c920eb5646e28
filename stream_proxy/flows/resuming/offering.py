"""Offering: the answers that this process keeps, for the retries that came to another one.

The other process names a call by its digest. If it is kept here, a head goes out at once; the result follows
when it is there: a line of JSON with status and fields, and the body. An earlier end of the connection means
that the client of the retry has left, too.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import msgspec
from msgspec import Struct
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from stream_proxy.downstream.heartbeat import Heartbeat
from stream_proxy.downstream.request import when_gone
from stream_proxy.downstream.response import respond_error
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, invalid_request
from stream_proxy.flows.resuming.joining import Source
from stream_proxy.flows.resuming.orphan import Result
from stream_proxy.flows.resuming.resumption import LostCalls
from stream_proxy.waiting.identity import Identity

#: Where a retry is asked for, and the fields that name it, all in Base64 but the count.
JOIN_PATH = b"/join"
DIGEST, RETRY, NAME = b"x-digest", b"x-retry", b"x-name"
_PIECE_BYTES = 131_072


class Head(Struct):
    """Result without its body; ``error`` stands for an error of ours."""

    status: int
    reason: str | None
    headers: list[tuple[bytes, bytes]]
    error: tuple[str, str, str | None, str | int, bool | None] | None = None


def packed(result: Result) -> list[bytes]:
    """Return a result as it travels between processes, in pieces."""
    error = result.error
    head = Head(
        result.status,
        None if result.reason is None else result.reason.decode("latin-1"),
        result.headers,
        None if error is None else (error.message, error.type, error.param, error.code, error.should_retry),
    )
    return [msgspec.json.encode(head) + b"\n", *result.pieces]


def unpacked(data: bytes) -> Result:
    """Return the result that came from another process.

    :raises ValueError: it is none.
    """
    line, mark, body = data.lstrip().partition(b"\n")
    if not mark:
        raise ValueError("cut off")
    head = msgspec.json.decode(line, type=Head)
    pieces = [body[at : at + _PIECE_BYTES] for at in range(0, len(body), _PIECE_BYTES)]
    error = None
    if head.error is not None:
        message, kind, param, code, should_retry = head.error
        error = APIError(head.status, message, kind, param=param, code=code, should_retry=should_retry)
    reason = None if head.reason is None else head.reason.encode("latin-1")
    return Result(head.status, reason, head.headers, pieces, error)


def naming(identity: Identity) -> list[tuple[bytes, list[bytes]]]:
    """Return the fields that name a call to another process."""
    fields = [(DIGEST, [base64.b64encode(identity.digest)]), (RETRY, [b"%d" % identity.retry])]
    if identity.idempotency_key is not None:
        fields.append((NAME, [base64.b64encode(identity.idempotency_key)]))
    return fields


class OfferResource(Resource):
    """What a process serves the others, on a socket that nobody else can reach.

    :param lost: what it keeps.
    """

    isLeaf = True
    streamsUploads = True

    def __init__(self, clock: IReactorTime, lost: LostCalls) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._clock = clock
        self._lost = lost

    def render(self, request: Request) -> int:
        """Give the result of a call that is kept, once it is there."""
        identity = _named(request) if request.path == JOIN_PATH else None
        source = None if identity is None else self._lost.find(identity)
        if source is None:
            respond_error(request, invalid_request("No such call is kept here.", ErrorCode.UNKNOWN_URL))
        else:
            _Offer(self._clock, request, source).start()
        return NOT_DONE_YET


def _named(request: Request) -> Identity | None:
    digest, retry, name = (request.getHeader(field) for field in (DIGEST, RETRY, NAME))
    try:
        return Identity(
            base64.b64decode(digest or b"", validate=True),
            None,
            int(retry or b"0"),
            None if name is None else base64.b64decode(name, validate=True),
        )
    except ValueError:
        return None


class _Offer:
    """Result that is given to another process."""

    def __init__(self, clock: IReactorTime, request: Request, source: Source) -> None:
        self._source: Source | None = source
        self._heartbeat = Heartbeat(clock, request, (0.0, 0.0), _nothing, _nothing)
        when_gone(request, self._gone)

    def start(self) -> None:
        """Send the head, and wait for the result."""
        self._heartbeat.begin(200, None, ())
        if self._source is not None:
            self._source.join(self)

    def resumed(self, result: Result) -> None:
        """Send the result."""
        self._heartbeat.respond_in_pieces(200, None, (), packed(result), self._given)

    def _given(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.end()

    def _gone(self, _: Failure) -> None:
        source, self._source = self._source, None
        self._heartbeat.stop()
        if source is not None:
            source.part()


def _nothing(*_: Callable[[], None]) -> None:
    """Do nothing."""
