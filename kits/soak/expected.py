"""Expected responses: checks that a response is the one that its case requires."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from kits.soak.cases import TOKEN, Case, chat_completion, chat_events, response_events, response_object
from kits.soak.client import Response
from kits.soak.delivery import framing_of, spelled

#: The statuses of faults that become errors of the proxy, where the client waits for one JSON body.
_CONVERTED = {
    **dict.fromkeys(
        ("early", "torn", "reset", "close", "garbage", "badchunk", "badjson", "br", "toolarge"), 502
    ),
    **dict.fromkeys(("silent", "stalled"), 504),
    **dict.fromkeys(("error", "s429"), 429),
    "s500": 500,
}
_BEFORE_HEAD = {"close": 502, "garbage": 502, "silent": 504}
_TYPES = {502: "upstream_error", 504: "upstream_timeout"}


class Wrong(Exception):
    """A response that differs from the expected one; the message states how."""


def check(held: object, what: str, *details: object) -> None:
    """Check that a condition holds.

    :raises Wrong: if it does not.
    """
    if not held:
        raise Wrong(f"{what}: {' | '.join(repr(detail)[:200] for detail in details)}")


def own(case: Case, response: Response) -> None:
    """Check that a response contains no other request's token."""
    tokens = set(TOKEN.findall(response.body))
    if response.head is not None:
        tokens |= set(TOKEN.findall(str(response.head).encode()))
    check(tokens <= {case.token.encode()}, "ANOTHER REQUEST'S TOKEN", case, tokens)


def converted(case: Case, response: Response, kind: str) -> None:
    """Check the response to a converted call."""
    own(case, response)
    status = _CONVERTED.get(case.fault, 200)
    check(response.status == status and not response.torn, "status", case, response.status, response.body)
    said = _json(case, response)
    if status != 200:
        _error(case, status, said)
        return
    expected = chat_completion(case) if kind == "chat" else response_object(case)
    if kind == "chat" and case.fault == "nousage":
        del expected["usage"]
    check(said == expected, "another response", case, said, expected)


def relayed(case: Case, response: Response, kind: str) -> None:
    """Check a relayed response: the upstream's bytes, or a connection that breaks."""
    own(case, response)
    fault = case.fault
    if fault in _BEFORE_HEAD:
        check(response.status == _BEFORE_HEAD[fault] and not response.torn, "status", case, response.status)
        _error(case, response.status, _json(case, response))
        return
    if kind != "data" and fault in ("s429", "s500"):
        check(response.status == int(fault[1:]), "status", case, response.status)
        check(_json(case, response) == {"error": case.error()}, "another error", case, response.body)
        return
    if kind != "data" and fault == "plain":
        check(response.status == 200, "status", case, response.status)
        expected = chat_completion(case) if kind == "chat" else response_object(case)
        check(_json(case, response) == expected, "another response", case, response.body)
        return
    body = _sent(case, kind)
    if fault == "reset" and response.status == 502:  # a reset may overtake the bytes sent before it
        return
    if fault in ("torn", "reset", "badchunk", "stalled"):
        half = body[: max(1, len(body) // 2)]
        check(response.status == 200 and response.torn, "not torn", case, response.status, len(response.body))
        whole = fault in ("torn", "stalled") and framing_of(case) != "chunked"
        check(half.startswith(response.body), "other bytes", case, response.body[-80:], half[-80:])
        check(not whole or response.body == half, "less than what came", case, len(response.body), len(half))
        return
    check(response.status == 200 and not response.torn, "status", case, response.status, response.torn)
    if fault == "gzip":
        try:
            check(gzip.decompress(response.body) == body, "other bytes", case)
        except (EOFError, OSError, zlib.error) as error:
            raise Wrong(f"not what was compressed: {case}: {error}") from None
    else:
        check(response.body == body, "other bytes", case, len(response.body), len(body))


def _sent(case: Case, kind: str) -> bytes:
    """Return all bytes that the upstream would send if it were not cut short."""
    if kind == "data":
        return case.data
    events = chat_events(case, usage=False) if kind == "chat" else response_events(case)
    events = spelled(case, events)
    return b"".join(events[: len(events) // 2] if case.fault == "early" else events)


def adapted(case: Case, response: Response, *, stream: bool) -> None:
    """Check a response of the adapter; a service that does not send ``[DONE]`` has not ended its response."""
    own(case, response)
    status = 502 if case.fault == "plain" else _CONVERTED.get(case.fault, 200)
    check(not response.torn, "torn", case)
    if not stream or response.status != 200:
        check(response.status == status, "status", case, response.status, response.body)
        said = _json(case, response)
        if status != 200:
            _error(case, status, said)
            return
        message = said["choices"][0]["message"]["content"]
        check(message == case.text, "another text", case, message)
        return
    events = [part.removeprefix(b"data: ") for part in response.body.split(b"\n\n") if part]
    check(events, "no events", case)
    done = events[-1] == b"[DONE]"
    check(done == (status == 200), "end of the stream", case, events[-1])
    chunks = [json.loads(event) for event in events[:-1]]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    check(text == case.text if done else case.text.startswith(text), "another text", case, text)
    if not done:
        _error(case, status, json.loads(events[-1]))


def uploaded(case: Case, response: Response, digest: str) -> None:
    """Check the response to an upload."""
    own(case, response)
    if case.fault in ("torn", "reset"):
        # The client may still be writing when the response and the close arrive, and then lose the response.
        check(response.status in (502, 0), "status", case, response.status)
        return
    if case.fault == "early":
        check(response.status in (413, 502, 0), "status", case, response.status)
        return
    if case.fault in _BEFORE_HEAD:
        check(response.status == _BEFORE_HEAD[case.fault], "status", case, response.status)
        return
    status = {"s500": 500, "s429": 429}.get(case.fault, 200)
    check(response.status == status and not response.torn, "status", case, response.status, response.body)
    check(_json(case, response) == {"token": case.token, "sha256": digest}, "other bytes arrived", case)


def _error(case: Case, status: int, said: Any) -> None:
    error: Any = said.get("error") if isinstance(said, dict) else None
    check(isinstance(error, dict) and {"message", "type", "code"} <= error.keys(), "no error", case, said)
    if status in _TYPES:
        check(error["type"] == _TYPES[status], "type", case, error)
    else:
        check(case.token in error["message"], "another message", case, error)


def _json(case: Case, response: Response) -> Any:
    try:
        return json.loads(response.body)
    except ValueError:
        raise Wrong(f"no JSON: {case} | {response.body[:200]!r}") from None
