"""Rows of the admin port: what it shows of a record, as JSON values. Sans-I/O.

Times are seconds of the reactor's clock, which begins as the wall clock's. What a record does not have is
``None``, and most of that is left out.
"""

from __future__ import annotations

from typing import Any

from stream_proxy.observe.capture.secrets import Secrets
from stream_proxy.observe.heads import shown_head
from stream_proxy.observe.record import Record
from stream_proxy.printable import printable

Row = dict[str, Any]

#: Characters of the longest text in a row.
_MOST_CHARACTERS = 300
#: The same in the details of one request.
_MOST_DETAIL = 4_096


def fixed(record: Record) -> Row:
    """Return what is known of a request from its beginning."""
    return {
        "began": _time(record.began),
        "rule": record.rule,
        "method": _text(record.method),
        "path": _text(record.path),
        "kind": record.kind,
        "client": _text(record.client),
        "requestId": _text(record.request_id),
    }


def moving(record: Record) -> Row:
    """Return what changes while a request runs."""
    record.refresh()
    silence = record.silence
    return {
        "mode": record.mode,
        "why": record.why,
        "model": _text(record.model),
        "phase": record.phase.value,
        "firstEvent": _time(record.first_event),
        "events": record.events or record.messages_up + record.messages_down,
        "received": record.received,
        "sent": max(record.sent, record.read),
        "touched": None if silence is None else _time(silence.touched),
        "limit": None if silence is None else silence.seconds,
        "attempts": len(record.attempts),
    }


def ended(record: Record) -> Row:
    """Return the row of a request that has ended."""
    usage = record.usage
    row = {
        **fixed(record),
        "mode": record.mode,
        "why": record.why,
        "model": _text(record.model),
        "head": _time(record.head),
        "firstEvent": _time(record.first_event),
        "lastEvent": _time(record.last_event),
        "ended": _time(record.ended),
        "events": record.events or record.messages_up + record.messages_down,
        "received": record.received,
        "sent": record.sent,
        "attempts": len(record.attempts),
        "input": usage and usage.input,
        "output": usage and usage.output,
        "status": record.status,
        "code": record.code,
        "problem": _text(record.problem),
    }
    return {name: value for name, value in row.items() if value is not None}


def details(record: Record, known: Secrets | None = None) -> Row:
    """Return all that is shown of one request, under way or not; heads have at most 4 KiB each.

    :param known: values that are secrets.
    """
    usage = record.usage
    steps = ("began", "decided", "asked", "connecting", "connected", "head")
    times = {name: getattr(record, name) for name in steps}
    times |= {"firstEvent": record.first_event, "lastEvent": record.last_event, "ended": record.ended}
    return {
        **fixed(record),
        **moving(record),
        "times": {name: round(at, 6) for name, at in times.items() if at is not None},
        "path": _text(record.path, _MOST_DETAIL),
        "live": record.ended is None,
        "upstream": _text(record.origin),
        "traceId": _text(record.trace_id),
        "sent": record.sent,
        "read": record.read,
        "status": record.status or None,
        "code": record.code,
        "problem": _text(record.problem, _MOST_DETAIL),
        "detail": _text(record.detail, _MOST_DETAIL),
        "attempts": [_text(reason) for reason in record.attempts],
        "usage": usage
        and {
            "input": usage.input,
            "output": usage.output,
            "cached": usage.cached,
            "reasoning": usage.reasoning,
        },
        "request": shown_head(record.request_fields, known),
        "response": shown_head(record.response_fields, known),
    }


def is_error(record: Record) -> bool:
    """Report whether a request failed; a client that leaves is no failure."""
    return record.status != 499 and (record.status >= 400 or record.problem is not None)


def _time(at: float | None) -> float | None:
    return None if at is None else round(at, 3)


def _text(value: str | bytes | None, most: int = _MOST_CHARACTERS) -> str | None:
    """Return a text that came from outside, cut and with unprintable characters escaped."""
    if value is None:
        return None
    text = value[: 4 * most].decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return printable(text if len(text) <= most else text[: most - 1] + "…")
