"""Check of a contestant's responses before anything is measured."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

from kits.benchmarks.workloads import Request

#: The time of sending in the texts of paced streams.
_STAMP = re.compile(r"sent=\d+")


class Wrong(Exception):
    """A response that differs from the upstream's; the message states how."""


def ask(port: int, request: Request) -> tuple[str, bytes]:
    """Send a request; return the media type and the body of the response.

    :raises Wrong: if the status is not 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(request.method, request.target, request.body, dict(request.headers))
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Wrong(f"no response: {error!r}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise Wrong(f"status {response.status}: {body[:300].decode('utf-8', 'replace')}")
    return response.headers.get_content_type(), body


def text_of(kind: str, body: bytes) -> str:
    """Return the text of a response: a stream, its aggregate, or a body that is not JSON.

    :raises Wrong: if it cannot be parsed.
    """
    try:
        if kind == "text/event-stream":
            lines = (line[5:].strip() for line in body.splitlines() if line.startswith(b"data:"))
            return "".join(_delta(json.loads(data)) for data in lines if data != b"[DONE]")
        if kind == "application/json":
            return _whole(json.loads(body))
    except (ValueError, LookupError, TypeError) as error:
        raise Wrong(f"cannot be parsed: {error!r}: {body[:200]!r}") from None
    return body.decode()


def _delta(event: dict[str, Any]) -> str:
    if "choices" in event:
        return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    delta = event.get("delta", "")
    return delta if isinstance(delta, str) else ""


def _whole(response: dict[str, Any]) -> str:
    if "choices" in response:
        return str(response["choices"][0]["message"]["content"])
    return "".join(part["text"] for item in response["output"] for part in item["content"])


def check(port: int, request: Request, expected: str) -> bool:
    """Check the text of a response; return whether it was streamed.

    :raises Wrong: if the text differs.
    """
    kind, body = ask(port, request)
    text, expected = (_STAMP.sub("sent", one) for one in (text_of(kind, body), expected))
    if text != expected:
        raise Wrong(f"{len(text)} characters of text, not {len(expected)}, or others")
    return kind == "text/event-stream"
