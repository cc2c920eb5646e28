"""Notes of a captured exchange: what its record says of it. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from stream_proxy.observe.capture.secrets import Secrets, blanked
from stream_proxy.observe.record import Record


class Notes(NamedTuple):
    """What the record of an exchange says of it. Times are seconds of the reactor's clock."""

    rule: str
    client: str
    mode: str
    why: str | None
    model: str | None
    began: float
    asked: float | None
    connected: float | None
    upstream_head: float | None
    ended: float | None
    status: int
    code: str | None
    problem: str | None

    @classmethod
    def of(cls, record: Record, known: Iterable[Secrets]) -> Notes:
        """Return those of a record, without the known values."""
        known = tuple(known)

        def text(value: str | None) -> str | None:
            if value is None:
                return None
            return blanked(value.encode("utf-8", "replace"), known).decode("utf-8", "replace")

        return cls(
            record.rule,
            record.client,
            record.mode,
            record.why,
            text(record.model),
            record.began,
            record.asked,
            record.connected,
            record.head,
            record.ended,
            record.status,
            record.code,
            text(record.problem),
        )
