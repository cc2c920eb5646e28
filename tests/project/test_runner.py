"""Closing line of ``python -m tests``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.__main__ import closing_line


class ClosingLineTests(SynchronousTestCase):
    """The result in a form that any tool can read."""

    def test_counts(self) -> None:
        """Expected failures count as passed; errors and unexpected successes count as failed."""
        for summary, expected in (
            ("PASSED (successes=158)\n", "158 passed, 0 failed"),
            ("PASSED (skips=2, successes=3)\n", "3 passed, 0 failed, 2 skipped"),
            ("PASSED (expectedFailures=1, successes=3)\n", "4 passed, 0 failed"),
            ("FAILED (failures=1, errors=2, unexpectedSuccesses=4, successes=3)\n", "3 passed, 7 failed"),
            ("PASSED\n", "0 passed, 0 failed"),
        ):
            self.assertEqual(closing_line(summary), expected)

    def test_no_summary(self) -> None:
        """If trial itself fails there is no summary, which counts as a failure."""
        self.assertEqual(closing_line(None), "0 passed, 1 failed")
