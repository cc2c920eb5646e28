"""Targets under Hypothesis: on every Python, without coverage to guide it."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kits.fuzz.targets import WORDS, Target

#: Any bytes, and bytes in which words of the formats stand.
INPUTS = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from(WORDS) | st.binary(max_size=12), max_size=25).map(b"".join),
)


def try_target(target: Target, examples: int) -> None:
    """Give `target` so many inputs, the same each time.

    :raises AssertionError: what it shows does not hold; so does any error that it lets out.
    """
    quiet = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    quiet(given(INPUTS)(target))()


def try_for(target: Target, seconds: float) -> int:
    """Give `target` inputs for so long, others each time; how many is returned."""
    count = 0

    def counted(data: bytes) -> None:
        nonlocal count
        count += 1
        target(data)

    random = settings(
        max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        random(given(INPUTS)(counted))()
    return count
