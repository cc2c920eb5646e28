"""References to environment variables in configured strings, so that secrets need not be written there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_REFERENCE = re.compile(r"\$\{([^}]*)\}")


def has_reference(text: str) -> bool:
    """Report whether `text` holds a ``${NAME}``."""
    return _REFERENCE.search(text) is not None


def expand(text: str, lookup: Callable[[str], str]) -> str:
    """Return `text` with each ``${NAME}`` replaced by ``lookup(NAME)``."""
    return _REFERENCE.sub(lambda match: lookup(match[1]), text)


def variable(name: str, environ: Mapping[str, str]) -> str:
    """Return the value of the environment variable `name`.

    :raises ValueError: it is unset or empty: a header or password without it would be wrong.
    """
    value = environ.get(name)
    if not value:
        raise ValueError(f"the environment has no {name}")
    return value
