"""Which failures are tried again, and after how long."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import TestCase

from stream_proxy.waiting.retrying import Retries, retry_after


class _Whole(Random):
    """Random numbers at the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


def retries(most: int = 2, longest: float = 20.0, announced: float | None = None) -> Retries:
    """Return retries without a spread."""
    return Retries(most, longest, announced, _Whole())


class RetryAfterTests(TestCase):
    """The wait that an upstream asks for."""

    def test_fields(self) -> None:
        """Seconds and milliseconds are read; a date, a sign and words are not."""
        for fields, seconds in (
            ([(b"Retry-After", b"7")], 7.0),
            ([(b"retry-after-ms", b"250")], 0.25),
            ([(b"Retry-After", b"7"), (b"retry-after-ms", b"250")], 0.25),
            ([(b"Retry-After", b"Wed, 21 Oct 2026 07:28:00 GMT")], None),
            ([(b"Retry-After", b"-1")], None),
            ([(b"Retry-After", b"soon")], None),
            ([], None),
        ):
            self.assertEqual(retry_after(fields), seconds, fields)


class RetriesTests(TestCase):
    """The attempts of one request."""

    def test_off(self) -> None:
        """Without retries nothing is tried again."""
        self.assertIsNone(retries(0).after_failure("upstream_refused", 0))
        self.assertIsNone(retries(0).after_status(429, [(b"Retry-After", b"1")], 0))

    def test_unsent(self) -> None:
        """A connection that could not be made is tried again with back-off, as often as allowed."""
        attempts = retries(3)
        waits = [attempts.after_failure("upstream_refused", 0) for _ in range(4)]
        self.assertEqual(waits, [0.25, 0.5, 1.0, None])

    def test_sent(self) -> None:
        """What the upstream may have seen is never sent again."""
        for code in ("upstream_timeout", "upstream_cut", "upstream_malformed", "server_error", 500):
            self.assertIsNone(retries().after_failure(code, 0), code)

    def test_statuses(self) -> None:
        """429 and 503 are tried again after the wait that they ask for, if that is short enough."""
        for status, fields, wait in (
            (429, [(b"Retry-After", b"3")], 3.0),
            (503, [(b"Retry-After", b"20")], 20.0),
            (503, [(b"Retry-After", b"21")], None),
            (429, [], None),
            (500, [(b"Retry-After", b"3")], None),
            (200, [(b"Retry-After", b"3")], None),
        ):
            self.assertEqual(retries().after_status(status, fields, 0), wait, (status, fields))

    def test_announced(self) -> None:
        """The wait ends before 80 % of the time-out that the client announced."""
        fields = [(b"Retry-After", b"6")]
        self.assertEqual(retries(announced=10).after_status(429, fields, 2.0), 6.0)
        self.assertIsNone(retries(announced=10).after_status(429, fields, 2.5))
        self.assertIsNone(retries(announced=1).after_failure("upstream_refused", 0.7))
