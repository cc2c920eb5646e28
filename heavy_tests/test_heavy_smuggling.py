"""Many more requests that could be read in two ways."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http import test_smuggling


class HeavyMutationTests(test_smuggling.MutationTests):
    """Requests with something done to them."""

    timeout = 600

    @settings(max_examples=20_000, deadline=None)
    @given(test_smuggling.mutated(), st.integers(1, 64))
    def test_one_meaning(self, data: bytes, pieces: int) -> None:
        """Whatever the client sends is refused, or has the one meaning that a strict reader finds in it."""
        self.check(data, pieces)
