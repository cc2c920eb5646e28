"""Ways to use Twisted and pyOpenSSL: the fast ones, which rely on their insides, and the plain ones.

A fast way is taken only where those insides are as expected. The plain one must stay right, so the tests run
on both: with ``STREAM_PROXY_PLAIN_WAYS=1`` in the environment nothing takes a fast way. Only tests set it.
"""

from __future__ import annotations

import os
from types import FunctionType

_VARIABLE = "STREAM_PROXY_PLAIN_WAYS"


def plain_ways() -> bool:
    """Return whether only the plain ways may be taken; asked once for a connection, not for each read."""
    return os.environ.get(_VARIABLE, "") not in ("", "0")


def uses(function: object, *names: str) -> bool:
    """Return whether the code of `function` refers to all these attributes, as code of ours supposes."""
    return isinstance(function, FunctionType) and set(names) <= set(function.__code__.co_names)
