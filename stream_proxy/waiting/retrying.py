"""Retries before the first byte: which failures may be tried again, and how long to wait before. Sans-I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from random import Random

from stream_proxy.error_codes import ErrorCode
from stream_proxy.http.headers import RawHeader

#: Failures before the upstream can have seen the request.
_UNSENT = frozenset(
    code.code
    for code in (
        ErrorCode.UPSTREAM_DNS,
        ErrorCode.UPSTREAM_REFUSED,
        ErrorCode.UPSTREAM_UNREACHABLE,
        ErrorCode.UPSTREAM_TLS,
        ErrorCode.EGRESS_FAILED,
        ErrorCode.EGRESS_REFUSED,
    )
)
_BUSY = (429, 503)
_SECONDS = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,9})?")
# Seconds before the first further attempt; each later one waits twice as long, up to the limit.
_FIRST, _LONGEST = 0.25, 8.0
#: The part of the announced time-out by whose end the last wait is over.
_SHARE = 0.8


def retry_after(fields: Iterable[RawHeader]) -> float | None:
    """Return the seconds that ``Retry-After-Ms`` or ``Retry-After`` ask for; a date is not read."""
    found: float | None = None
    for name, value in fields:
        lower, text = name.lower(), value.strip()
        if lower not in (b"retry-after", b"retry-after-ms") or not _SECONDS.fullmatch(text):
            continue
        if lower == b"retry-after-ms":
            return float(text) / 1000
        found = float(text)
    return found


class Retries:
    """The further attempts of one request, which end with the first byte to the client.

    :param most: how many; ``retries`` of the rule.
    :param longest_wait: ``retryAfterMaxSeconds``.
    :param announced: seconds after which the client gives up, counted from the request's arrival.
    :param random: where the spread of the waits comes from.
    """

    def __init__(
        self, most: int, longest_wait: float, announced: float | None, random: Random | None = None
    ) -> None:
        self.left = most
        self._longest_wait = longest_wait
        self._end = None if announced is None else announced * _SHARE
        self._back_off = _FIRST
        self._random = random or Random()

    def after_failure(self, code: str | int, elapsed: float) -> float | None:
        """Return the seconds to wait after a failure of ours with this code; ``None``: do not try again.

        :param elapsed: seconds since the request came.
        """
        if code not in _UNSENT:
            return None
        wait, self._back_off = self._back_off, min(self._back_off * 2, _LONGEST)
        return self._grant(wait * self._random.uniform(0.5, 1.0), elapsed)

    def after_status(self, status: int, fields: Iterable[RawHeader], elapsed: float) -> float | None:
        """Return the seconds to wait after an upstream's status; ``None``: the client gets it."""
        wait = retry_after(fields) if status in _BUSY else None
        if wait is None or wait > self._longest_wait:
            return None
        return self._grant(wait, elapsed)

    def _grant(self, wait: float, elapsed: float) -> float | None:
        if self.left <= 0 or (self._end is not None and elapsed + wait > self._end):
            return None
        self.left -= 1
        return wait
