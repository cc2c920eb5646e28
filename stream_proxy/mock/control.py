"""Control headers: the ``X-Mock-*`` of a request, and the failures that they inject into its response."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TypeVar

from stream_proxy.mock.wire import Ending, HTTPResponse, MockError, invalid, sse

FAILURES = frozenset(
    ("error-chunk", "error-event", "failed", "break", "break-mid-event", "no-done", "hang", "not-json")
)
_REFUSABLE = frozenset(("stream", "stream_options"))
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
    """The control headers of a request; the package's docstring explains each."""

    status: int | None = None
    code: str | None = None
    delay: float = 0.0
    pace: float = 0.0
    words: int | None = None
    after: int = 1
    fail: str | None = None
    require_stream: bool = False
    refuse: frozenset[str] = frozenset()

    def error(self) -> MockError | None:
        """Return the error that ``X-Mock-Status`` asks for."""
        if self.status is None:
            return None
        message, code = MESSAGES.get(self.status, (f"The mock was asked for status {self.status}.", None))
        headers = (("Retry-After", "1"),) if self.status in (429, 503) else ()
        return MockError(self.status, message, code=self._code(code), headers=headers)

    def failure(self) -> MockError:
        """Return the error of ``X-Mock-Fail``, with its status for a non-streaming response."""
        code = self._code("server_error")
        if code is None:
            status = 502
        elif code.isascii() and code.isdigit() and 400 <= int(code[:4]) <= 599:
            status = int(code)
        else:
            status = STATUSES.get(code, 400)
        return MockError(status, "The mock was asked to fail here.", code=code)

    def _code(self, default: str | None) -> str | None:
        if self.code is None:
            return default
        return None if self.code == "none" else self.code


def read_control(header: Callable[[str], str | None]) -> Control:
    """Read the control headers of a request.

    :param header: returns the value of a header, by name.
    :raises MockError: 400 that names the header with an invalid value.
    """

    def read(name: str, parse: Callable[[str], T], default: T) -> T:
        text = header(name)
        if text is None:
            return default
        try:
            return parse(text.strip())
        except (ValueError, OverflowError):
            raise invalid(name, f"Invalid value for the header {name}.") from None

    return Control(
        status=read("X-Mock-Status", partial(_number, 400, 599), None),
        code=read("X-Mock-Code", str, None),
        delay=read("X-Mock-Delay", _seconds, 0.0),
        pace=read("X-Mock-Pace", _seconds, 0.0),
        words=read("X-Mock-Words", partial(_number, 1, MAX_WORDS), None),
        after=read("X-Mock-After", int, 1),
        fail=read("X-Mock-Fail", partial(_one_of, FAILURES), None),
        require_stream=bool(read("X-Mock-Require-Stream", partial(_number, 0, 1), 0)),
        refuse=read("X-Mock-Refuse", _refused, frozenset()),
    )


def _number(least: int, most: int, text: str) -> int:
    if not least <= (value := int(text)) <= most:
        raise ValueError
    return value


def _one_of(allowed: frozenset[str], text: str) -> str:
    if text not in allowed:
        raise ValueError
    return text


def _refused(text: str) -> frozenset[str]:
    return frozenset(_one_of(_REFUSABLE, name.strip()) for name in text.split(","))


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or not 0 <= value <= MAX_SECONDS:
        raise ValueError
    return value


def failing_stream(control: Control, events: Iterator[bytes], error: Callable[[int], bytes]) -> HTTPResponse:
    """Return a stream of `events` with the failure asked for, if any.

    :param error: returns the event that reports it, given its position in the stream.
    """
    after = control.after
    if after < 0:
        listed = list(events)
        events, after = iter(listed), max(0, len(listed) + after)
    head = islice(events, after)
    body, ending = events, Ending.FINISH
    match control.fail:
        case "error-chunk" | "error-event" | "failed":
            body = chain(head, (error(after),))
        case "break":
            body, ending = head, Ending.BREAK
        case "break-mid-event":
            half = (event[: len(event) // 2] for event in islice(events, 1))
            body, ending = chain(head, half), Ending.BREAK
        case "no-done":
            body = _without_last(events)
        case "hang":
            body, ending = head, Ending.HANG
        case "not-json":
            body = chain(head, (sse(b"<html>Bad gateway</html>"),), events)
    return HTTPResponse(
        body,
        content_type="text/event-stream; charset=utf-8",
        headers=(("Cache-Control", "no-cache"),),
        ending=ending,
    )


def with_failure(control: Control, response: HTTPResponse) -> HTTPResponse:
    """Return a non-streaming response with the failure asked for, if any.

    :raises MockError: the failure is an error.
    """
    assert isinstance(response.body, bytes)
    body = response.body
    match control.fail:
        case "failed" if control.failure().code is None:
            # A failed Response without a code is a 200, which the endpoint has returned already.
            return response
        case "error-chunk" | "error-event" | "failed":
            raise control.failure()
        case "break" | "break-mid-event":
            # Only the declared length shows that the body was cut.
            headers = (*response.headers, ("Content-Length", str(len(body))))
            return HTTPResponse(
                body[: len(body) // 2], response.status, response.content_type, headers, Ending.BREAK
            )
        case "hang":
            return HTTPResponse(b"", response.status, response.content_type, response.headers, Ending.HANG)
        case "not-json":
            return HTTPResponse(
                b"<html>Bad gateway</html>", response.status, response.content_type, response.headers
            )
    return response


def _without_last(events: Iterator[bytes]) -> Iterator[bytes]:
    held = next(events, None)
    for event in events:
        if held is not None:
            yield held
        held = event
