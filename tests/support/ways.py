"""Choice of the ways that a test takes, whatever the environment of the run says."""

from __future__ import annotations

import os
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase


def take_ways(case: SynchronousTestCase, *, plain: bool) -> None:
    """Let connections that begin during this test take the plain ways, or the fast ones."""
    patch = mock.patch.dict(os.environ, {"STREAM_PROXY_PLAIN_WAYS": "1" if plain else "0"})
    patch.start()
    case.addCleanup(patch.stop)
