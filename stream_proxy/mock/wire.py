"""JSON in and out, errors in OpenAI's form, server-sent events, and names derived from content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, BinaryIO, TypeAlias

import msgspec

JSONObject: TypeAlias = dict[str, Any]

EPOCH = 1_750_000_000
"""When everything here was created: a clock would make a stream differ from the ordinary answer."""


class Ending(Enum):
    """How the body of an answer ends."""

    FINISH = auto()
    """As HTTP has it."""
    BREAK = auto()
    """The connection closes without the end of the body."""
    HANG = auto()
    """Not at all: the connection stays open and silent."""


@dataclass(frozen=True)
class Reply:
    """An answer before it is sent: a body in one piece, or the events of a stream."""

    body: bytes | Iterator[bytes]
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    ending: Ending = Ending.FINISH


class ApiError(Exception):
    """An error that becomes OpenAI's envelope: ``{"error": {"message", "type", "param", "code"}}``."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers

    def envelope(self) -> JSONObject:
        """The body. Its ``type`` follows from the status."""
        kind = (
            "rate_limit_error"
            if self.status == 429
            else ("server_error" if self.status >= 500 else "invalid_request_error")
        )
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def reply(self) -> Reply:
        """The whole answer."""
        return Reply(encode(self.envelope()), self.status, headers=self.headers)


def encode(value: object) -> bytes:
    """`value` as compact UTF-8 JSON; lone surrogates, which UTF-8 has no form for, stay escapes."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def decode_object(content: BinaryIO) -> JSONObject:
    """The JSON object in a request body.

    :raises ApiError: 400 where there is none.
    """
    try:
        value = json.loads(content.read())
    except (ValueError, RecursionError):
        raise ApiError(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(value, dict):
        raise ApiError(400, "The JSON body of your request is not an object.")
    return value


def sse(data: bytes, event: str | None = None) -> bytes:
    """One server-sent event."""
    if event is None:
        return b"data: %b\n\n" % data
    return b"event: %b\ndata: %b\n\n" % (event.encode("ascii"), data)


def digest(*parts: object) -> str:
    """48 hex digits that are the same for the same parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("ascii")).hexdigest()[:48]


def fingerprint(body: JSONObject) -> str:
    """`digest` of what a request asks for, whatever the mode in which it wants the answer."""
    return digest({key: value for key, value in body.items() if key not in ("stream", "stream_options")})
