"""Record of one request, filled by its flow as it goes; log, metrics and page read it. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct

from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.capturing import ExchangeCapture
from stream_proxy.observe.kinds import APIKind, api_kind


class Phase(Enum):
    """What a request waits for."""

    READING = "reading"
    QUEUED = "waiting for a slot"
    CONNECTING = "connecting"
    RETRYING = "waiting to try again"
    HEAD = "waiting for the head"
    FIRST_EVENT = "waiting for the first event"
    STREAMING = "streaming"
    CLIENT = "waiting for the client"


class Usage(Struct, frozen=True):
    """Tokens that an answer reports; ``None`` for a count that it does not have."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None


class Silence(Protocol):
    """Timer of a request's silence, in seconds of the reactor's clock."""

    @property
    def touched(self) -> float:
        """When something moved last."""

    @property
    def seconds(self) -> float:
        """How long nothing may move."""


class Upload(Protocol):
    """Body of a request on its way in."""

    @property
    def received(self) -> int:
        """How many bytes of it have come."""


class Record:
    """One request, from its head to its end.

    Times are seconds of the reactor's clock, ``None`` for what has not happened. Most attributes are defaults
    of the class, so that a record costs no more than what happened.

    :param number: its number in the process, which rises.
    :param rule: the name of the rule.
    :param began: when the head was in.
    """

    # The request. The path has no query; `why` is the reason why a call of a convertible API is passed on.
    method: bytes = b""
    path: bytes = b""
    client: str = ""
    mode: str = "passed"
    why: str | None = None
    model: str | None = None
    request_fields: Sequence[RawHeader] = ()
    response_fields: Sequence[RawHeader] = ()

    # The steps.
    phase = Phase.READING
    #: When a body that is held was whole.
    collected: float | None = None
    decided: float | None = None
    asked: float | None = None
    connecting: float | None = None
    connected: float | None = None
    head: float | None = None
    first_event: float | None = None
    last_event: float | None = None
    ended: float | None = None
    #: The reasons of second attempts, in their order.
    attempts: tuple[str, ...] = ()

    # Counts, of which `refresh` brings those that are not final up to date: bytes of the bodies from the
    # client, from the upstream and to the client, events from the first one with content on, and messages of
    # a WebSocket either way.
    received = 0
    read = 0
    sent = 0
    events = 0
    messages_up = 0
    messages_down = 0
    usage: Usage | None = None
    #: The client got a head before there was a response, and spaces while it waited.
    kept_alive = False

    # The end.
    status = 0
    code: str | None = None
    problem: str | None = None
    detail: str | None = None
    #: The client left before the response was whole.
    left = False
    #: Its answer waits for a retry.
    kept = False

    # While it goes.
    silence: Silence | None = None
    upload: Upload | None = None
    cancel: Callable[[], None] | None = None
    #: Keeps the exchange, if somebody wants that.
    capture: ExchangeCapture | None = None
    #: Brings the counts of the flow up to date.
    recount: Callable[[], None] | None = None

    def __init__(self, number: int, rule: str, began: float) -> None:
        self.number = number
        self.rule = rule
        self.began = began

    @property
    def kind(self) -> APIKind:
        """The API that the path belongs to."""
        return api_kind(self.path)

    def refresh(self) -> None:
        """Bring the counts up to date, of a request that goes on."""
        if self.upload is not None:
            self.received = self.upload.received
        if self.recount is not None:
            self.recount()
