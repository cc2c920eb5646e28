"""Number of examples of the property tests: some in ``make test``, all of them in ``make test-heavy``.

The package :mod:`tests` loads the profile, which is for the tests that name no number of their own.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

#: The environment's name for it: ``full``, or a part of the examples.
_FULL = os.environ.get("STREAM_PROXY_EXAMPLES") == "full"
_PART, _FEWEST = 5, 40
_PROFILE = "tests"


def _number(full: int) -> int:
    return full if _FULL else min(full, max(full // _PART, _FEWEST))


def examples(full: int) -> settings:
    """Return the decorator of a test whose examples are the same in each run.

    :param full: the number of all examples.
    """
    return settings(settings.get_profile(_PROFILE), max_examples=_number(full), derandomize=True)


def load_profile() -> None:
    """Make the settings of this project the default: no test fails because the machine is slow."""
    # Trial's directory is another one in each process, and empty in each run: Hypothesis would make its table
    # of all characters there again.
    set_hypothesis_home_dir(Path(__file__).resolve().parents[2] / ".hypothesis")
    settings.register_profile(
        _PROFILE, max_examples=_number(100), deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile(_PROFILE)
