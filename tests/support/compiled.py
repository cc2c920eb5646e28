"""Compiled modules, as in the wheel of ``make wheels``: nothing can be put inside of them."""

from __future__ import annotations

from unittest import SkipTest

from stream_proxy.aggregate import chat

COMPILED = not str(chat.__file__).endswith(".py")


def skip_if_compiled() -> None:
    """Skip a test that replaces a method of these modules, or subclasses one of their classes."""
    if COMPILED:
        raise SkipTest("the modules are compiled")
