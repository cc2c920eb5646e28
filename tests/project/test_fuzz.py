"""Fuzz targets on a few inputs each; ``make fuzz`` runs them for longer."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kits.fuzz.hypothesis_engine import try_target
from kits.fuzz.targets import TARGETS

EXAMPLES = 100


class TargetTests(SynchronousTestCase):
    """A short run of each target."""


def _test(name: str) -> None:
    def test(self: TargetTests) -> None:
        try_target(TARGETS[name], EXAMPLES)

    test.__doc__ = TARGETS[name].__doc__
    setattr(TargetTests, f"test_{name}", test)


for _name in TARGETS:
    _test(_name)
