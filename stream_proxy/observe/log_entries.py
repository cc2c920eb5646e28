"""Entries of the log about requests, made out of their records, as text or as JSON. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, TypedDict

from msgspec import Struct
from msgspec.json import Encoder
from msgspec.structs import asdict

from stream_proxy.lenient_json import encode_json
from stream_proxy.observe.record import Record

_encode = Encoder().encode

# How much of a path is logged: a longer one means nothing to a reader, and costs whoever writes and reads it.
_MOST_PATH = 2_048


class Log(Protocol):
    """Log that entries go to."""

    #: Finished requests are wanted, the steps of each as well, and as JSON.
    tells_requests: bool
    tells_steps: bool
    as_json: bool

    def entry(self, line: str, members: Mapping[str, object], *, debug: bool = False) -> None:
        """Add an entry whose text is ready.

        :param line: the text, or JSON if the log is so.
        :param members: further members of the event.
        """


def log_request(log: Log, record: Record) -> None:
    """Log a finished request, if the log wants that."""
    if not log.tells_requests:
        return
    facts = facts_of(record)
    line = request_json(record, facts) if log.as_json else request_text(record, facts)
    log.entry(line, facts)
    if log.tells_steps:
        log.entry(steps_json(record) if log.as_json else steps_text(record), {}, debug=True)


def log_received(log: Log, record: Record) -> None:
    """Log the head of a request, if the log wants the steps."""
    if not log.tells_steps:
        return
    if log.as_json:
        members = {"event": "received", "number": record.number, **_target(record), **_origin(record)}
        line = _json(members)
    else:
        target = _target(record)
        line = f"request {record.number} {target['method']} {target['path']} received from {record.client}"
    log.entry(line, {}, debug=True)


class Target(TypedDict):
    """Method and path."""

    method: str
    path: str


class Facts(Target):
    """Members of an event, for other observers of Twisted's log than ours."""

    status: int
    how: str
    origin: str
    sent: int
    milliseconds: int
    detail: str
    problem: str


def facts_of(record: Record) -> Facts:
    """Return what happened, without anything that a record holds and a log must not."""
    began, detail, problem = record.began, record.detail, record.problem
    return {
        **_target(record),
        "status": record.status,
        "how": record.mode,
        "origin": record.origin,
        "sent": record.sent,
        "milliseconds": round(((record.ended or began) - began) * 1000),
        "detail": f", {detail}" if detail else "",
        "problem": f": {problem}" if problem else "",
    }


def request_text(record: Record, facts: Facts) -> str:
    """Return the line of a finished request: what happened, the reason if it failed, and further facts.

    The latter are ``name=value`` behind a bar, in a fixed order, and only those that are known.
    """
    began, usage = record.began, record.usage
    request_id, trace_id = record.identifiers()
    line = (
        f"{facts['method']} {facts['path']} {facts['status']} {facts['how']} {facts['origin']} "
        f"{facts['sent']} bytes {facts['milliseconds']} ms{facts['detail']}{facts['problem']} | "
        f"rule={_word(record.rule)} client={record.client} received={record.received}"
    )
    if record.head is not None:
        line += f" head={round((record.head - began) * 1000)}"
    if record.first_event is not None:
        line += f" first={round((record.first_event - began) * 1000)}"
    if record.model is not None:
        line += f" model={_word(record.model)}"
    if usage is not None:
        line += f" input={usage.input or 0} output={usage.output or 0}"
    if record.why is not None:
        line += f" why={_word(record.why)}"
    if record.attempts:
        line += f" again={_word(', '.join(record.attempts))}"
    if request_id is not None:
        line += f" id={_word(request_id)}"
    if trace_id is not None:
        line += f" trace={trace_id}"
    if record.code is not None:
        line += f" code={_word(record.code)}"
    return line


class RequestEntry(Struct, omit_defaults=True):
    """Finished request as a JSON object; what is not known is left out. Names stay."""

    number: int
    method: str
    path: str
    status: int
    mode: str
    rule: str
    client: str
    upstream: str
    duration_ms: float
    received_bytes: int
    upstream_bytes: int
    sent_bytes: int
    event: str = ""
    why: str | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    events: int = 0
    messages_up: int | None = None
    messages_down: int | None = None
    head_ms: float | None = None
    first_event_ms: float | None = None
    kept_alive: bool = False
    attempts: tuple[str, ...] = ()
    request_id: str | None = None
    trace_id: str | None = None
    code: str | None = None
    problem: str | None = None
    detail: str | None = None


def request_json(record: Record, facts: Facts) -> str:
    """Return a finished request as a JSON object."""
    began, ended, usage = record.began, record.ended, record.usage
    request_id, trace_id = record.identifiers()
    entry = RequestEntry(
        record.number,
        facts["method"],
        facts["path"],
        record.status,
        record.mode,
        record.rule,
        record.client,
        record.origin,
        0.0 if ended is None else round((ended - began) * 1000, 1),
        record.received,
        record.read,
        record.sent,
        event="request",
        why=record.why,
        model=record.model,
        events=record.events,
        kept_alive=record.kept_alive,
        attempts=record.attempts,
        request_id=request_id,
        trace_id=trace_id,
        code=record.code,
        problem=record.problem,
        detail=record.detail,
    )
    if usage is not None:
        entry.input_tokens, entry.output_tokens = usage.input, usage.output
        entry.cached_tokens, entry.reasoning_tokens = usage.cached, usage.reasoning
    if record.mode == "websocket":
        entry.messages_up, entry.messages_down = record.messages_up, record.messages_down
    if record.head is not None:
        entry.head_ms = round((record.head - began) * 1000, 1)
    if record.first_event is not None:
        entry.first_event_ms = round((record.first_event - began) * 1000, 1)
    try:
        return printable_json(_encode(entry).decode())
    except UnicodeEncodeError:  # a lone surrogate
        return _json(asdict(entry))


def steps_text(record: Record) -> str:
    """Return the line of a request's steps, in milliseconds since its head."""
    steps = ", ".join(f"{name} {milliseconds:g}" for name, milliseconds in _steps(record))
    return f"request {record.number} steps in ms: {steps}"


def steps_json(record: Record) -> str:
    """Return a request's steps as a JSON object."""
    steps = {f"{name.replace(' ', '_')}_ms": milliseconds for name, milliseconds in _steps(record)}
    return _json({"event": "steps", "number": record.number, **steps})


def _steps(record: Record) -> Iterator[tuple[str, float]]:
    """Yield the steps that happened, in their order."""
    for name, when in (
        ("received", record.began),
        ("decided", record.decided),
        ("asked", record.asked),
        ("connecting", record.connecting),
        ("connected", record.connected),
        ("head", record.head),
        ("first event", record.first_event),
        ("last event", record.last_event),
        ("answered", record.ended),
    ):
        milliseconds = _milliseconds(record, when)
        if milliseconds is not None:
            yield name, milliseconds


def _milliseconds(record: Record, when: float | None) -> float | None:
    return None if when is None else round((when - record.began) * 1000, 1)


def _target(record: Record) -> Target:
    return {
        "method": _decoded(record.method),
        "path": _decoded(record.path[:_MOST_PATH]),
    }


def _origin(record: Record) -> dict[str, object]:
    return {"rule": record.rule, "client": record.client}


def _decoded(data: bytes) -> str:
    return data.decode("ascii", "backslashreplace")


def _word(value: str) -> str:
    """Return a value as one word, in quotes if it is none by itself."""
    if " " not in value and '"' not in value and value:
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _json(members: Mapping[str, object]) -> str:
    """Return an object as JSON in one printable line, without the members that are ``None``."""
    known = {name: value for name, value in members.items() if value not in (None, ())}
    return printable_json(encode_json(known).decode("utf-8", "backslashreplace"))


def printable_json(text: str) -> str:
    """Return JSON with all characters of its strings escaped that are not printable."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
