"""Wire format of the mock: JSON, OpenAI's errors, server-sent events, and ids derived from content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, BinaryIO, TypeAlias

import msgspec

from stream_proxy.mock.messages import Pause

JSONObject: TypeAlias = dict[str, Any]

EPOCH = 1_750_000_000
"""The creation time of every object: with a clock a stream would differ from the JSON response."""


class Ending(Enum):
    """End of a response body."""

    FINISH = auto()
    """With a complete body."""
    BREAK = auto()
    """With the connection's close before the end of the body."""
    HANG = auto()
    """Never: the connection stays open and idle."""


@dataclass(frozen=True)
class HTTPResponse:
    """A response to be sent: a body in one piece, or the events of a stream."""

    body: bytes | Iterator[bytes | Pause]
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    ending: Ending = Ending.FINISH
    paced: bool = True
    """Keep the pauses of the body."""


class MockError(Exception):
    """An error response, in OpenAI's envelope: ``{"error": {"message", "type", "param", "code"}}``."""

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
        """Return the body, whose ``type`` follows from the status."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> HTTPResponse:
        """Return the response."""
        return HTTPResponse(encode(self.envelope()), self.status, headers=self.headers)


def invalid(param: str, message: str, code: str | None = None) -> MockError:
    """Return the 400 for a parameter with an invalid value."""
    return MockError(400, message, param=param, code=code)


def missing(param: str) -> MockError:
    """Return the 400 for a required parameter that is absent."""
    return invalid(param, f"Missing required parameter: '{param}'.", "missing_required_parameter")


def encode(value: object) -> bytes:
    """Return `value` as compact UTF-8 JSON; lone surrogates, which UTF-8 cannot encode, stay escapes."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def decode_object(content: BinaryIO) -> JSONObject:
    """Return the JSON object in a request body.

    :raises MockError: 400 if the body is not a JSON object.
    """
    try:
        value = json.loads(content.read())
    except (ValueError, RecursionError):
        raise MockError(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(value, dict):
        raise MockError(400, "The JSON body of your request is not an object.")
    return value


def sse(data: bytes, event: str | None = None) -> bytes:
    """Return one server-sent event."""
    if event is None:
        return b"data: %b\n\n" % data
    return b"event: %b\ndata: %b\n\n" % (event.encode("ascii"), data)


def digest(*parts: object) -> str:
    """Return 48 hex digits that depend on `parts` alone."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("ascii")).hexdigest()[:48]


def fingerprint(body: JSONObject) -> str:
    """Return the `digest` of a request, the same for its streaming and its non-streaming form."""
    return digest({key: value for key, value in body.items() if key not in ("stream", "stream_options")})


class IdSource:
    """Ids for the objects of a session: a hash of its `parts` and of a counter."""

    def __init__(self, *parts: object) -> None:
        self.seed = digest(*parts)
        self._count = 0

    def next(self, prefix: str) -> str:
        """Return the next id."""
        self._count += 1
        return f"{prefix}_{digest(self.seed, self._count)[:21]}"
