"""Ambiguous requests in large numbers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http import test_smuggling


class HeavyMutationTests(test_smuggling.MutationTests):
    """Requests with random mutations."""

    timeout = 600

    @settings(max_examples=20_000, deadline=None)
    @given(test_smuggling.mutated(), st.integers(1, 64))
    def test_one_meaning(self, data: bytes, pieces: int) -> None:
        """Every request is refused, or has the one meaning that a strict parser finds in it."""
        self.check(data, pieces)
