"""Corpus of provider streams: what each provider streams, and the answer it gives without a stream.

Each folder is one entry: ``request.json`` is the client's body, ``stream.sse`` the body of the provider's
response, and ``note.json`` says what is special. ``expected.json`` is the answer, or ``{"status", "error"}``
with those fields of the error that are compared; ``"$ANY"`` stands for any text that is not empty. All
entries are written for these tests, after public documentation and reports; none is a recording.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, upstream_error
from stream_proxy.flows.conversion.aggregation import StreamAggregation
from stream_proxy.flows.conversion.call import Kind, call_to_convert
from stream_proxy.limits import Limits
from stream_proxy.observe.record import Record

HERE = Path(__file__).parent
ANY = "$ANY"
_TARGETS = {"chat": b"/v1/chat/completions", "responses": b"/v1/responses"}


@dataclass(frozen=True)
class Entry:
    """One stream of a provider.

    :param differs: what the provider does differently from others.
    :param handled: what the proxy does about it.
    :param sources: where that is documented.
    """

    name: str
    provider: str
    api: str
    differs: str
    handled: str
    sources: list[str]

    @property
    def target(self) -> str:
        """The path of the API."""
        return _TARGETS[self.api].decode()

    @property
    def request(self) -> bytes:
        """The client's body."""
        return (HERE / self.name / "request.json").read_bytes()

    @property
    def stream(self) -> bytes:
        """The body of the provider's response."""
        return (HERE / self.name / "stream.sse").read_bytes()

    @property
    def expected(self) -> dict[str, object]:
        """What the client gets."""
        expected: dict[str, object] = json.loads((HERE / self.name / "expected.json").read_bytes())
        return expected


def entries() -> list[Entry]:
    """Return all entries, by provider and then by name."""
    notes = {path.parent.name: json.loads(path.read_bytes()) for path in HERE.glob("*/note.json")}
    found = [Entry(name, **note) for name, note in notes.items()]
    return sorted(found, key=lambda entry: (entry.provider.lower(), entry.name))


def replayed(entry: Entry, reads: list[bytes], *, cut: bool = False) -> tuple[int, object]:
    """Return the status and the body of the answer to an entry's request, its stream coming in `reads`.

    :param cut: whether the connection breaks after them.
    """
    target = _TARGETS[entry.api]
    kind = Kind(entry.api)
    call = call_to_convert(kind, target, entry.request)
    assert call is not None, f"{entry.name}: the request is not converted"
    aggregation = StreamAggregation(call, Limits(), Record(0, "", 0.0))
    try:
        for read in reads:
            consume(aggregation.feed(read))
        if not aggregation.complete:
            broken = upstream_error("The connection broke off.", ErrorCode.UPSTREAM_CUT)
            consume(aggregation.end(broken if cut else None))
        consume(aggregation.steps())
        return 200, json.loads(b"".join(aggregation.result()))
    except APIError as error:
        return error.status, json.loads(error.envelope())


def consume(steps: Iterable[int]) -> None:
    """Take all steps of some work."""
    for _ in steps:
        pass


def differences(entry: Entry, status: int, body: object) -> list[str]:
    """Return how an answer differs from the expected one, as ``path: got, not expected``."""
    expected: object = entry.expected
    if isinstance(expected, dict) and isinstance(expected.get("status"), int):
        got = body.get("error") if isinstance(body, dict) else None
        wanted = expected["error"]
        if isinstance(got, dict) and isinstance(wanted, dict):
            got = {key: value for key, value in got.items() if key in wanted}
        expected, body = {"status": expected["status"], "error": wanted}, {"status": status, "error": got}
    else:
        expected, body = {"status": 200, "body": expected}, {"status": status, "body": body}
    return list(_differences(expected, body, entry.name))


def _differences(want: object, got: object, path: str) -> list[str]:
    if isinstance(want, dict) and isinstance(got, dict):
        keys = dict.fromkeys((*want, *got))
        missing = "no such key"
        return [
            found
            for key in keys
            for found in _differences(want.get(key, missing), got.get(key, missing), f"{path}.{key}")
        ]
    if isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        return [
            found
            for index, (one, other) in enumerate(zip(want, got, strict=True))
            for found in _differences(one, other, f"{path}[{index}]")
        ]
    same = bool(isinstance(got, str) and got) if want == ANY else type(want) is type(got) and want == got
    return [] if same else [f"{path}: {got!r}, not {want!r}"]
