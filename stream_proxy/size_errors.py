"""Errors about JSON that would take too much memory or time: a retry would only cost the same again."""

from __future__ import annotations

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, invalid_request, proxy_error


def response_too_many_values(limit: int) -> APIError:
    """Return a 502: a response, or an event of it, has more JSON values than may be decoded and held."""
    return proxy_error(
        ErrorCode.RESPONSE_TOO_MANY_VALUES,
        f"The upstream's answer has more JSON values than the {limit} that maxResponseValues allows; "
        "ask for less output, or raise maxResponseValues.",
        should_retry=False,
    )


def event_too_large(limit: int) -> APIError:
    """Return a 502: one event of a stream has more than `limit` bytes."""
    return proxy_error(
        ErrorCode.EVENT_TOO_LARGE,
        f"An event of the upstream's stream is larger than the {limit} bytes that maxEventBytes allows; "
        "ask for less output, or raise maxEventBytes.",
        should_retry=False,
    )


def request_too_many_values(limit: int) -> APIError:
    """Return a 413: a body that has to be read has more JSON values than may be decoded."""
    return invalid_request(
        f"The request body has more than {limit} JSON values; send fewer, or raise maxRequestValues.",
        ErrorCode.REQUEST_TOO_MANY_VALUES,
    )
