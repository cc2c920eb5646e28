"""Record of one request, filled by its flow as it goes; log, metrics and page read it. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.capturing import ExchangeCapture
from stream_proxy.observe.kinds import APIKind, api_kind
from stream_proxy.observe.usage import Usage

__all__ = ["Phase", "Record", "Silence", "Upload", "Usage"]

# What is taken of an identifier or a name that somebody else chose.
_MOST_CHARACTERS = 128
_REQUEST_ID, _TRACE = b"x-request-id", b"traceparent"
# Few other names have one of these lengths, which costs less to see than the name.
_LENGTHS = (len(_REQUEST_ID), len(_TRACE))


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


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """One request, from its head to its end.

    Times are seconds of the reactor's clock, ``None`` for what has not happened.

    :param number: its number in the process, which rises.
    :param rule: the name of the rule.
    :param began: when the head was in.
    """

    number: int
    rule: str
    began: float

    # The request. The path has no query; `client` is an address without a port, that of the PROXY protocol
    # where it is spoken; `origin` is the upstream's; `why` is the reason why a call of a convertible API is
    # passed on; `model` is what was asked for until the answer names its own.
    method: bytes = b"-"
    path: bytes = b"-"
    client: str = "-"
    origin: str = "-"
    mode: str = "passed"
    why: str | None = None
    model: str | None = None
    request_fields: Sequence[RawHeader] = ()
    response_fields: Sequence[RawHeader] = ()

    # The steps.
    phase: Phase = Phase.READING
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
    # client, from the upstream and to the client, events from the first one with content on, and
    # a WebSocket's messages either way.
    received: int = 0
    read: int = 0
    sent: int = 0
    events: int = 0
    messages_up: int = 0
    messages_down: int = 0
    usage: Usage | None = None
    #: The client got a head before there was a response, and spaces while it waited.
    kept_alive: bool = False

    # The end.
    status: int = 0
    code: str | None = None
    problem: str | None = None
    detail: str | None = None
    #: The client left before the response was whole.
    left: bool = False
    #: Its answer waits for a retry.
    kept: bool = False

    # While it goes.
    silence: Silence | None = None
    upload: Upload | None = None
    cancel: Callable[[], None] | None = None
    #: Keeps the exchange, if somebody wants that.
    capture: ExchangeCapture | None = None
    #: Brings the counts of the flow up to date.
    recount: Callable[[], None] | None = None

    @property
    def kind(self) -> APIKind:
        """The API that the path belongs to."""
        return api_kind(self.path)

    @property
    def request_id(self) -> str | None:
        """The client's ``x-request-id``, else the upstream's."""
        return self.identifiers()[0]

    @property
    def trace_id(self) -> str | None:
        """The trace that the client's ``traceparent`` names (W3C Trace Context, section 3.2)."""
        return self.identifiers()[1]

    def identifiers(self) -> tuple[str | None, str | None]:
        """Return the request's and the trace's, which are looked for only when somebody asks."""
        request_id = trace_id = None
        for name, value in self.request_fields:
            if len(name) not in _LENGTHS:
                continue
            lower = name.lower()
            if lower == _REQUEST_ID and request_id is None:
                request_id = value
            elif lower == _TRACE and trace_id is None:
                trace_id = value
        if not request_id:
            for name, value in self.response_fields:
                if len(name) in _LENGTHS and name.lower() == _REQUEST_ID:
                    request_id = value
                    break
        return (
            request_id[:_MOST_CHARACTERS].decode("utf-8", "backslashreplace") if request_id else None,
            _trace(trace_id) if trace_id else None,
        )

    @property
    def abandoned_events(self) -> int:
        """The events that the upstream had sent in vain when the client left."""
        return self.events if self.status == 499 else 0

    def name_model(self, name: object) -> None:
        """Note the model, unless `name`, which is decoded JSON, is none."""
        if isinstance(name, str) and name:
            self.model = name[:_MOST_CHARACTERS]

    def note_mode(self, why: str | None) -> None:
        """Note that a call is converted, or `why` it is passed on; the first reason counts."""
        if why is None:
            self.mode, self.why = "converted", None
        else:
            self.mode, self.why = "passed", self.why or why

    def note_step(self, step: str, now: float) -> None:
        """Note what happens to the request before it is on a connection to the upstream."""
        match step:
            case "queued":
                self.phase = Phase.QUEUED
            case "connecting":
                self.phase = Phase.CONNECTING
                self.connecting = now
            case "connected":
                self.phase = Phase.HEAD
                self.connected = now
            case "resent":
                self.attempts += ("stale connection",)

    def refresh(self) -> None:
        """Bring the counts up to date, of a request that goes on."""
        if self.upload is not None:
            self.received = self.upload.received
        if self.recount is not None:
            self.recount()


def _trace(parent: bytes) -> str | None:
    """Return the identifier of the trace in a ``traceparent``, ``None`` if it is malformed."""
    parts = parent[:_MOST_CHARACTERS].decode("ascii", "replace").split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 and parts[1].isalnum() else None
