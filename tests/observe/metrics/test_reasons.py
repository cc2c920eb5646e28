"""Reasons of refusals and failures."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.error_codes import ErrorCode
from stream_proxy.observe.metrics.reasons import NEITHER, REFUSED, UPSTREAM, refusal, upstream_error
from tests.support.metrics import ended, failed


class ReasonsTests(SynchronousTestCase):
    """Each error has one reason, from a short list."""

    def test_complete(self) -> None:
        """Each code of ours has its place, and there is no place for another."""
        places = [*UPSTREAM, *REFUSED, *NEITHER]
        self.assertEqual(sorted(places), sorted(code.code for code in ErrorCode))

    def test_refused(self) -> None:
        """What the proxy refuses is no failure of the upstream."""
        for code, reason in (("invalid_api_key", "key"), ("server_is_overloaded", "limit")):
            record = failed(401, code)
            self.assertEqual((refusal(record), upstream_error(record)), (reason, None))

    def test_same_code(self) -> None:
        """The same code out of the upstream's stream is a failure of the upstream."""
        for code in ("invalid_api_key", "server_is_overloaded", "rate_limit_exceeded", "made_up"):
            record = ended(status=429, code=code)
            self.assertEqual((refusal(record), upstream_error(record)), (None, "in_band"))

    def test_late(self) -> None:
        """What ends here after the upstream's head is no failure of the upstream either."""
        self.assertEqual(refusal(ended(status=503, code="server_stopping")), "draining")
        for code in ("server_stopping", "client_stalled", "cancelled", "internal_error"):
            self.assertIsNone(upstream_error(ended(status=503, code=code)))

    def test_statuses(self) -> None:
        """An error status that is relayed counts by its class, one of ours does not."""
        self.assertEqual(upstream_error(ended(status=429)), "status_4xx")
        self.assertEqual(upstream_error(ended(status=503)), "status_5xx")
        self.assertIsNone(upstream_error(failed(499)))
        self.assertIsNone(upstream_error(ended()))

    def test_timeouts(self) -> None:
        """A time-out says what took too long."""
        for reason, fields in (
            ("connect", {"head": None, "connecting": 1.0}),
            ("head_timeout", {"head": None, "connecting": 1.0, "connected": 2.0}),
            ("head_timeout", {"head": None}),
            ("stalled", {}),
        ):
            self.assertEqual(upstream_error(ended(status=504, code="upstream_timeout", **fields)), reason)

    def test_broken_off(self) -> None:
        """A relayed answer that broke off counts, though its status was a success."""
        self.assertEqual(upstream_error(ended(mode="passed", problem="the upstream closed")), "cut")
        self.assertIsNone(upstream_error(ended(mode="websocket", status=101, problem="went away")))
