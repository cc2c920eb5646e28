"""An error that an upstream reported in a stream: its status, its type, and all its fields.

There is one rule for statuses, for all APIs and for every spelling that providers use.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

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
# Words in names of errors once these are lower case and without punctuation ("RateLimitError",
# "rate_limit_exceeded"). The first hit counts: what says most precedes what is said of many errors.
_WORDS: tuple[tuple[int, str], ...] = (
    (503, "overload unavailable busy slowdown"),
    (429, "ratelimit toomanyrequests usagelimit usagenotincluded quota throttl resourceexhausted"),
    (402, "insufficientbalance insufficientcredit paymentrequired"),
    (401, "authentication unauthenticated unauthorized apikey"),
    (403, "permission forbidden accessdenied"),
    (404, "notfound"),
    (413, "toolarge"),
    (504, "timeout timedout deadlineexceeded"),
    (400, "contextlength contextsize contextwindow contentfilter contentpolicy validation"),
    (400, "invalidrequest badrequest invalidargument invalidparam invalidprompt invalidvalue"),
    (502, "upstream badgateway"),
    (500, "server internal api"),
)
_PUNCTUATION = re.compile(r"[^a-z0-9]+")
_STATUS = re.compile(r"\s*([45][0-9]{2})(?:[ :].*)?\s*", re.ASCII | re.DOTALL)
_STATUS_KEYS = (
    "code", "status", "status_code", "http_status_code",
    "statusCode", "httpStatusCode", "http_status", "error_code",
)  # fmt: skip
_CODE_KEYS = ("code", "error_code", "error")
_NAME_KEYS = (*_CODE_KEYS, "type", "error_type", "status")
# A longer text is a sentence, which may speak of anything.
_LONGEST_NAME = 80
# How many values the further fields of an error may hold, and how deep they may be nested. So many characters
# of their texts count as one.
_MAX_VALUES = 10_000
_CHARACTERS = 32
_MAX_DEPTH = 50
#: The most characters of a message, a type, a code or a parameter: an error is made, logged and sent at once.
MAX_TEXT = 262_144
_OWN_KEYS = frozenset({"message", "type", "param", "code"})
_NOTHING: Mapping[str, object] = {}


class ReportedError(APIError):
    """An error that an upstream reported, with every field of its error object.

    :param details: the fields besides those of every error, like Groq's ``failed_generation``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        type: str,
        *,
        param: str | None = None,
        code: str | int | None = None,
        for_log: str | None = None,
        details: Mapping[str, object] = _NOTHING,
    ) -> None:
        super().__init__(status, message, type, param=param, code=code, for_log=for_log)
        self.details = details

    def envelope(self) -> bytes:
        """Return the response body: OpenAI's four keys, then the upstream's further ones."""
        body = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        text = json.dumps({"error": body | dict(self.details)}, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace")

    def redacted(self, replace: Callable[[str], str]) -> ReportedError:
        """Return the same error with `replace` applied to every text in it."""
        plain = super().redacted(replace)
        return ReportedError(
            plain.status,
            plain.message,
            plain.type,
            param=plain.param,
            code=plain.code,
            for_log=plain.for_log,
            details={key: _rewritten(value, replace) for key, value in self.details.items()},
        )


def further_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of an error object that have no place of their own in an envelope.

    What no JSON can express, or only JSON that clients could not read, is dropped.
    """
    found: dict[str, object] = {}
    room = _MAX_VALUES
    for key, value in fields.items():
        if key in _OWN_KEYS:
            continue
        usable = as_json(value) is not None
        room -= _count(value, room) if usable else _MAX_DEPTH  # what is dropped costs time, too
        if room < 0:
            break
        if usable:
            found[key] = _rewritten(value, str)
    return found


def as_json(value: object) -> str | None:
    """Return `value` as JSON, ``None`` if it is too much or cannot be expressed."""
    if _count(value, _MAX_VALUES) > _MAX_VALUES:
        return None
    try:
        return json.dumps(_rewritten(value, str), ensure_ascii=False)
    except (ValueError, TypeError):  # a number of too many digits, a key that is no text
        return None


def _count(value: object, most: int) -> int:
    """Return how many values a JSON value holds, more than `most` if it is nested too deep."""
    count, level, depth = 0, [value], 0
    while level:
        count += len(level)
        depth += 1
        if count > most or depth > _MAX_DEPTH:
            return most + 1
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, str):
                count += len(each) // _CHARACTERS
        level = inner
    return count


def shortened(text: str) -> str:
    """Return the beginning of a text that is too long for an error."""
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def _rewritten(value: object, replace: Callable[[str], str]) -> object:
    """Return a copy of a JSON value with `replace` applied to its texts."""
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, list):
        return [_rewritten(each, replace) for each in value]
    if isinstance(value, dict):
        return {replace(str(key)): _rewritten(each, replace) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def status_of(layers: Sequence[Mapping[str, object]]) -> int | None:
    """Return the status of an error, or ``None`` if nothing tells it.

    :param layers: the error object, and the objects around it, from the inside out.
    """
    for layer in layers:
        for key in _STATUS_KEYS:
            status = http_status(layer.get(key))
            if status is not None:
                return status
    mapped = _by_code(layers)
    return _status_of_words(layers) if mapped is None else mapped[0]


def type_of(layers: Sequence[Mapping[str, object]], status: int) -> str:
    """Return the type of an error: the upstream's own, else that of its code, else that of its `status`."""
    for layer in layers:
        for key in ("type", "error_type"):
            name = error_name(layer.get(key))
            if name is not None:
                return shortened(name)
    mapped = _by_code(layers)
    if mapped is not None:
        return mapped[1]
    if status == 502:
        return UPSTREAM_ERROR
    return RATE_LIMIT if status == 429 else SERVER_ERROR if status >= 500 else INVALID_REQUEST


def error_name(value: object) -> str | None:
    """Return `value` if it can name a kind of error; a type like ``"error"`` is that of an event."""
    if not isinstance(value, str) or not value.strip() or value == "error" or value.startswith("response."):
        return None
    return value


def http_status(value: object) -> int | None:
    """Return the status of an error that a value stands for: 429, 429.0, "429", "429 Too Many Requests"."""
    if isinstance(value, str):
        found = _STATUS.fullmatch(value)
        return None if found is None else int(found[1])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if is_integer(value) and 400 <= value <= 599 else None


def _names(layers: Sequence[Mapping[str, object]], keys: Sequence[str]) -> Iterator[str]:
    for layer in layers:
        for key in keys:
            name = error_name(layer.get(key))
            sentence = name is None or len(name) > _LONGEST_NAME or (key == "error" and " " in name.strip())
            if name is not None and not sentence:
                yield name.strip().lower()


def _by_code(layers: Sequence[Mapping[str, object]]) -> tuple[int, str] | None:
    return next((_CODES[name] for name in _names(layers, _CODE_KEYS) if name in _CODES), None)


def _status_of_words(layers: Sequence[Mapping[str, object]]) -> int | None:
    bare = [_PUNCTUATION.sub("", name) for name in _names(layers, _NAME_KEYS)]
    for status, words in _WORDS:
        if any(word in name for word in words.split() for name in bare):
            return status
    return None
