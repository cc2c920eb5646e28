"""Errors inside event streams, converted to the errors that the client gets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Literal

from stream_proxy.error_codes import INVALID_REQUEST, RATE_LIMIT, SERVER_ERROR, UPSTREAM_ERROR
from stream_proxy.errors import APIError
from stream_proxy.lenient_json import is_integer

# Codes of the Responses API's error object, each with the status and type that its non-streaming form has.
_CODES: dict[str, tuple[int, str]] = {
    "insufficient_quota": (429, RATE_LIMIT),
    "rate_limit_exceeded": (429, RATE_LIMIT),
    "usage_not_included": (429, RATE_LIMIT),
    "server_is_overloaded": (503, SERVER_ERROR),
    "slow_down": (503, SERVER_ERROR),
    "server_error": (500, SERVER_ERROR),
    "vector_store_timeout": (504, SERVER_ERROR),
}
# Words found in an error's `type` once it is lower case and without punctuation ("RateLimitError",
# "rate_limit_exceeded"); the first hit counts, so the specific ones precede "server" and "internal".
_TYPE_WORDS: tuple[tuple[str, int], ...] = (
    ("overloaded", 503),
    ("unavailable", 503),
    ("ratelimit", 429),
    ("toomanyrequests", 429),
    ("quota", 429),
    ("authentication", 401),
    ("unauthorized", 401),
    ("permission", 403),
    ("forbidden", 403),
    ("notfound", 404),
    ("invalidrequest", 400),
    ("badrequest", 400),
    ("server", 500),
    ("internal", 500),
    ("apierror", 500),
)
_PUNCTUATION = re.compile(r"[^a-z0-9]+")
_STATUS_CODE = re.compile(r"[45][0-9]{2}", re.ASCII)
# Gateways wrap one error envelope into another; the bound stops at absurd nesting.
_MAX_NESTING = 4
_UPSTREAM_SAID = "the upstream reported an error in its stream"
_INT64 = 2**63


def chat_stream_error(error: object) -> APIError:
    """Return the error in a chat stream: an OpenAI error object, a vendor's variation of one, or a string.

    Its status is a ``code`` or ``status`` that is a number (or digits) from 400 to 599; else the one for its
    ``code``; else the one for its ``type``; else 502. Nothing that the upstream may send raises here.
    """
    fields = _error_object(error)
    own_type, own_code = _text(fields.get("type")), _code(fields.get("code"))
    mapped = _CODES.get(own_code) if isinstance(own_code, str) else None
    status = (
        _http_status(fields.get("code"))
        or _http_status(fields.get("status"))
        or (mapped[0] if mapped else None)
        or _status_of_type(own_type)
        or 502
    )
    return _from_upstream(status, fields, own_type or (mapped[1] if mapped else UPSTREAM_ERROR), own_code)


def response_error(error: object, *, event: Literal["failed", "error"]) -> APIError | None:
    """Return the error of a Responses stream, or ``None`` if the client gets a 200 with the Response.

    :param error: for ``"failed"`` the Response's ``error``; for ``"error"`` the event's JSON, flat
        (``{"type": "error", "code", "message", "param"}``) or nested (``{"type": "error", "error": {…}}``).
    :param event: ``response.failed``, which without a code is a result, or ``error``, which never is.
    """
    if event == "failed":
        fields: Mapping[str, object] = error if isinstance(error, dict) else {}
    elif isinstance(error, dict) and error.get("error") is not None:
        fields = _error_object(error["error"])
    else:
        fields = _error_object(error)
        if fields.get("type") == "error":  # the type of the event, not of the error
            fields = {key: value for key, value in fields.items() if key != "type"}
    own_type, own_code = _text(fields.get("type")), _code(fields.get("code"))
    if own_code is not None:
        status, mapped_type = _CODES.get(str(own_code), (400, INVALID_REQUEST))
    elif event == "failed":
        return None
    else:
        status, mapped_type = 502, UPSTREAM_ERROR
    return _from_upstream(status, fields, own_type or mapped_type, own_code)


def _from_upstream(status: int, fields: Mapping[str, object], type: str, code: str | int | None) -> APIError:
    message = _message(fields)
    if message is None:
        details = f"type {type}" if code is None else f"type {type}, code {code}"
        message = f"The upstream reported an error in its stream and gave no message ({details})."
    return APIError(
        status, message, type, param=_text(fields.get("param")), code=code, for_log=_UPSTREAM_SAID
    )


def _error_object(error: object) -> Mapping[str, object]:
    """Return the object that holds the error's fields; a bare string is its message."""
    for _ in range(_MAX_NESTING):
        if not isinstance(error, dict):
            break
        inner = error.get("error")
        if _message(error) is not None or inner is None:
            return error
        error = inner
    return error if isinstance(error, dict) else {"message": error}


def _message(fields: Mapping[str, object]) -> str | None:
    for key in ("message", "detail", "msg"):
        value = fields.get(key)
        if isinstance(value, str):
            if value.strip():
                return value
        elif value not in (None, True, False, [], {}):
            try:
                return json.dumps(value, ensure_ascii=False)
            except (ValueError, TypeError, RecursionError):  # nested too deep, or too many digits
                continue
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _code(value: object) -> str | int | None:
    """Return `value` if it can be a code. Most clients could not read an integer beyond 64 bits."""
    if is_integer(value) and -_INT64 <= value < _INT64:
        return value
    return _text(value)


def _http_status(value: object) -> int | None:
    if isinstance(value, str) and _STATUS_CODE.fullmatch(value.strip()):
        return int(value)
    if is_integer(value) and 400 <= value <= 599:
        return value
    return None


def _status_of_type(type: str | None) -> int | None:
    if type is None:
        return None
    bare = _PUNCTUATION.sub("", type.lower())
    return next((status for word, status in _TYPE_WORDS if word in bare), None)
