"""Bounds of JSON from outside, judged before it is decoded, and the errors for what exceeds them."""

from __future__ import annotations

from collections.abc import Iterator

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, proxy_error
from stream_proxy.json_steps import escapes_exceed_steps, nested_deeper_steps, values_exceed_steps
from stream_proxy.lenient_json import nested_deeper, values_exceed
from stream_proxy.limits import MAX_VALUES

#: How deep the JSON that clients and services send to an adapter may be nested. Templates, expressions and
#: Python's own encoder recurse; no real one comes near.
MAX_DEPTH = 128
# An adapter searches the values of a payload one by one: microseconds each, where decoding takes 50 ns.
_SEARCH_WEIGHT = 32
#: The same for an object, to which each known shape is held.
OBJECT_WEIGHT = 7
# Whatever the limit, a payload may have so many.
_LEAST_SEARCHED = 4096


def check_request(data: bytes, most: int, *, most_deep: int | None = None) -> None:
    """Judge a client's body.

    :param most: how many values it may have.
    :param most_deep: how deep it may be nested, if that matters.
    :raises APIError: 413 or 400.
    """
    if values_exceed(data, most):
        raise request_too_many_values(most)
    if most_deep is not None and nested_deeper(data, most_deep):
        raise proxy_error(
            ErrorCode.REQUEST_NESTED_TOO_DEEP,
            f"The request body is nested more than {most_deep} levels deep; flatten it.",
        )


def request_too_many_values(limit: int) -> APIError:
    """Return a 413: a request has more values than are looked at."""
    return proxy_error(
        ErrorCode.REQUEST_TOO_MANY_VALUES,
        f"The request body has more than {limit} JSON values; send fewer, or raise maxRequestValues.",
    )


def check_payload(data: bytes, max_values: int = MAX_VALUES) -> None:
    """Judge a payload of an adapter's service by what it takes to decode and to search it in one step.

    :param max_values: how many values a whole response may have.
    :raises APIError: it has too many values or escapes, or is nested too deep.
    """
    for _ in payload_checks(data, max_values):
        pass


def most_searched(max_values: int = MAX_VALUES) -> int:
    """Return how many values a payload may have that are searched one by one.

    :param max_values: how many a whole response may have.
    """
    return max(max_values // _SEARCH_WEIGHT, _LEAST_SEARCHED)


def payload_checks(data: bytes, max_values: int = MAX_VALUES) -> Iterator[None]:
    """Judge a payload as `check_payload` does, in steps."""
    most = most_searched(max_values)
    if (yield from values_exceed_steps(data, most, object_weight=OBJECT_WEIGHT)):
        raise proxy_error(
            ErrorCode.RESPONSE_TOO_MANY_VALUES,
            f"A payload of the service has more than {most} JSON values, the share of maxResponseValues that "
            f"one may have (an object counts as {OBJECT_WEIGHT}); raise maxResponseValues.",
        )
    yield
    if (yield from escapes_exceed_steps(data, max_values)):
        raise response_too_many_values(max_values)
    yield
    if (yield from nested_deeper_steps(data, MAX_DEPTH)):
        raise proxy_error(
            ErrorCode.UPSTREAM_MALFORMED,
            f"The service sent a payload that is nested more than {MAX_DEPTH} levels deep.",
        )


def response_too_many_values(limit: int) -> APIError:
    """Return a 502: a response, or an event of it, has more values than may be decoded and held."""
    return proxy_error(
        ErrorCode.RESPONSE_TOO_MANY_VALUES,
        f"The upstream's answer has more JSON values than the {limit} that maxResponseValues allows; "
        "ask for less output, or raise maxResponseValues.",
    )


def event_too_large(limit: int) -> APIError:
    """Return a 502: one event of a stream has more than `limit` bytes."""
    return proxy_error(
        ErrorCode.EVENT_TOO_LARGE,
        f"An event of the upstream's stream is larger than the {limit} bytes that maxEventBytes allows; "
        "ask for less output, or raise maxEventBytes.",
    )
