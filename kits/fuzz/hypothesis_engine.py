"""Fuzzing under Hypothesis: on every Python, without the guidance of coverage."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kits.fuzz.targets import WORDS, Target

#: Arbitrary bytes, and bytes with words of the formats.
INPUTS = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from(WORDS) | st.binary(max_size=12), max_size=25).map(b"".join),
)


def try_target(target: Target, examples: int) -> None:
    """Run `target` on a number of inputs, the same ones each time.

    :raises AssertionError: if a property does not hold; any other error of the target is raised as well.
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
    """Run `target` on new inputs for a time; return their number."""
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
