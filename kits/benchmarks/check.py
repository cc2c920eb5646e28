"""Before anything is measured: does the contestant answer what the upstream said?"""

from __future__ import annotations

import http.client
import json
from typing import Any

from kits.benchmarks.workloads import Request


class Wrong(Exception):
    """An answer is not what it should be; the text says in which way."""


def ask(port: int, request: Request) -> tuple[str, bytes]:
    """Send a request; the type and the body of the answer.

    :raises Wrong: it is no 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(request.method, request.target, request.body, dict(request.headers))
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Wrong(f"no answer: {error!r}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise Wrong(f"status {answer.status}: {body[:300].decode('utf-8', 'replace')}")
    return answer.headers.get_content_type(), body


def text_of(kind: str, body: bytes) -> str:
    """The text that an answer carries, whether it is a stream, its sum, or no JSON at all.

    :raises Wrong: it cannot be read.
    """
    try:
        if kind == "text/event-stream":
            lines = (line[5:].strip() for line in body.splitlines() if line.startswith(b"data:"))
            return "".join(_delta(json.loads(data)) for data in lines if data != b"[DONE]")
        if kind == "application/json":
            return _whole(json.loads(body))
    except (ValueError, LookupError, TypeError) as error:
        raise Wrong(f"cannot be read: {error!r}: {body[:200]!r}") from None
    return body.decode()


def _delta(event: dict[str, Any]) -> str:
    if "choices" in event:
        return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    delta = event.get("delta", "")
    return delta if isinstance(delta, str) else ""


def _whole(answer: dict[str, Any]) -> str:
    if "choices" in answer:
        return str(answer["choices"][0]["message"]["content"])
    return "".join(part["text"] for item in answer["output"] for part in item["content"])


def check(port: int, request: Request, expected: str) -> bool:
    """See that the answer's text is the expected one; whether it came as a stream.

    :raises Wrong: it is not.
    """
    kind, body = ask(port, request)
    text = text_of(kind, body)
    if text != expected:
        raise Wrong(f"{len(text)} characters of text, not {len(expected)}, or others")
    return kind == "text/event-stream"
