"""The ``X-Mock-*`` request headers, and what the failures among them do to an answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

from stream_proxy.mock.wire import ApiError, Ending, Reply, sse

FAILURES = frozenset(
    ("error-chunk", "error-event", "failed", "break", "break-mid-event", "no-done", "hang", "not-json")
)
ERRORS = frozenset(("error-chunk", "error-event", "failed"))
"""The failures that are an error of the model's, with a status outside a stream."""

MAX_WORDS = 1_000_000
MAX_SECONDS = 3600.0

STATUSES = {
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "usage_not_included": 429,
    "server_is_overloaded": 503,
    "slow_down": 503,
    "server_error": 500,
    "vector_store_timeout": 504,
}
MESSAGES = {
    401: ("Incorrect API key provided.", "invalid_api_key"),
    404: ("The model does not exist or you do not have access to it.", "model_not_found"),
    429: ("Rate limit reached: please try again in 1s.", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request.", "server_error"),
    503: ("The server is overloaded: please retry after a brief wait.", "server_is_overloaded"),
}

T = TypeVar("T")


@dataclass(frozen=True)
class Control:
    """What a request's control headers ask for; see the package's table."""

    status: int | None = None
    code: str | None = None
    delay: float = 0.0
    pace: float = 0.0
    words: int | None = None
    after: int = 1
    fail: str | None = None
    require_stream: bool = False
    refuse: frozenset[str] = frozenset()

    def error(self) -> ApiError | None:
        """The error that ``X-Mock-Status`` asks for."""
        if self.status is None:
            return None
        message, code = MESSAGES.get(self.status, (f"The mock was asked for status {self.status}.", None))
        headers = (("Retry-After", "1"),) if self.status in (429, 503) else ()
        return ApiError(self.status, message, code=self._code(code), headers=headers)

    def failure(self) -> ApiError:
        """The error of ``X-Mock-Fail``, with the status that it has outside a stream."""
        code = self._code("server_error")
        if code is None:
            status = 502
        elif code.isascii() and code.isdigit() and 400 <= int(code[:4]) <= 599:
            status = int(code)
        else:
            status = STATUSES.get(code, 400)
        return ApiError(status, "The mock was asked to fail here.", code=code)

    def _code(self, default: str | None) -> str | None:
        if self.code is None:
            return default
        return None if self.code == "none" else self.code


def read_control(header: Callable[[str], str | None]) -> Control:
    """The control headers of a request, of which `header` gives one by name.

    :raises ApiError: 400 for a value that makes no sense.
    """

    def read(name: str, parse: Callable[[str], T], default: T) -> T:
        text = header(name)
        if text is None:
            return default
        try:
            return parse(text.strip())
        except (ValueError, OverflowError):
            raise ApiError(400, f"Invalid value for the header {name}.", param=name) from None

    def among(allowed: frozenset[str]) -> Callable[[str], str]:
        def parse(text: str) -> str:
            if text not in allowed:
                raise ValueError
            return text

        return parse

    def number(least: int, most: int) -> Callable[[str], int]:
        def parse(text: str) -> int:
            if not least <= (value := int(text)) <= most:
                raise ValueError
            return value

        return parse

    def refused(text: str) -> frozenset[str]:
        parse = among(frozenset(("stream", "stream_options")))
        return frozenset(parse(name.strip()) for name in text.split(","))

    return Control(
        status=read("X-Mock-Status", number(400, 599), None),
        code=read("X-Mock-Code", str, None),
        delay=read("X-Mock-Delay", _seconds, 0.0),
        pace=read("X-Mock-Pace", _seconds, 0.0),
        words=read("X-Mock-Words", number(1, MAX_WORDS), None),
        after=read("X-Mock-After", int, 1),
        fail=read("X-Mock-Fail", among(FAILURES), None),
        require_stream=bool(read("X-Mock-Require-Stream", number(0, 1), 0)),
        refuse=read("X-Mock-Refuse", refused, frozenset()),
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or not 0 <= value <= MAX_SECONDS:
        raise ValueError
    return value


def spoil_stream(control: Control, events: Iterator[bytes], failure: Callable[[int], bytes]) -> Reply:
    """A stream of `events` with the failure asked for.

    :param failure: Makes the event that tells of an error, from its number in the stream.
    """
    after = control.after
    if after < 0:
        whole = list(events)
        events, after = iter(whole), max(0, len(whole) + after)
    head = islice(events, after)
    body, ending = events, Ending.FINISH
    match control.fail:
        case "error-chunk" | "error-event" | "failed":
            body = chain(head, (failure(after),))
        case "break":
            body, ending = head, Ending.BREAK
        case "break-mid-event":
            body, ending = (
                chain(head, (event[: len(event) // 2] for event in islice(events, 1))),
                Ending.BREAK,
            )
        case "no-done":
            body = _without_last(events)
        case "hang":
            body, ending = head, Ending.HANG
        case "not-json":
            body = chain(head, (sse(b"<html>Bad gateway</html>"),), events)
    return Reply(
        body,
        content_type="text/event-stream; charset=utf-8",
        headers=(("Cache-Control", "no-cache"),),
        ending=ending,
    )


def spoil(control: Control, reply: Reply) -> Reply:
    """An answer that is no stream, with the failure asked for.

    :raises ApiError: where the failure is an error.
    """
    assert isinstance(reply.body, bytes)
    body = reply.body
    match control.fail:
        case "failed" if control.failure().code is None:
            # Such a Response is no error: the endpoint has made it.
            return reply
        case "error-chunk" | "error-event" | "failed":
            raise control.failure()
        case "break" | "break-mid-event":
            # The declared length is that of the whole body.
            headers = (*reply.headers, ("Content-Length", str(len(body))))
            return Reply(body[: len(body) // 2], reply.status, reply.content_type, headers, Ending.BREAK)
        case "hang":
            return Reply(b"", reply.status, reply.content_type, reply.headers, Ending.HANG)
        case "not-json":
            return Reply(b"<html>Bad gateway</html>", reply.status, reply.content_type, reply.headers)
    return reply


def _without_last(events: Iterator[bytes]) -> Iterator[bytes]:
    held = next(events, None)
    for event in events:
        if held is not None:
            yield held
        held = event
