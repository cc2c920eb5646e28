"""Checks that targets share: comparison of outcomes, and strict JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from stream_proxy.errors import APIError

Outcome = tuple[object, ...]


def require(held: object, what: str, *details: object) -> None:
    """Check that a condition holds.

    :raises AssertionError: if it does not.
    """
    if not held:
        raise AssertionError(f"{what}: {' | '.join(repr(detail) for detail in details)}"[:4000])


def same(what: str, one: object, other: object) -> None:
    """Check that two ways lead to the same result."""
    require(one == other, what, one, other)


def one_line(text: str) -> None:
    """Check that `text` is one printable line."""
    require(text and text.splitlines() == [text], "not one line", text)
    text.encode()


def failed(error: APIError) -> Outcome:
    """Return an error as an outcome; its envelope must be valid."""
    require(400 <= error.status <= 599, "no status of an error", error.status)
    body = strict(error.envelope())
    same("not the envelope's keys", list(body["error"])[:4], ["message", "type", "param", "code"])
    return error.status, error.type, error.code, error.param, error.message


def strict(data: bytes) -> Any:
    """Parse `data`, which must be JSON as in RFC 8259."""

    def unspellable(word: str) -> NoReturn:
        raise AssertionError(f"no JSON has {word}")

    return json.loads(data.decode("utf-8"), parse_constant=unspellable)


def outcome(run: Callable[[], Outcome]) -> Outcome:
    """Return the result of `run`, or the outcome of the APIError that it raises."""
    try:
        return run()
    except APIError as error:
        return failed(error)


def fed(pieces: Iterable[bytes], feed: Callable[[bytes], object]) -> None:
    """Feed the pieces one by one."""
    for piece in pieces:
        feed(piece)
