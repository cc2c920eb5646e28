"""References to environment variables in configured strings, so that secrets need not be written there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

#: Quotes that shells and files of variables know.
QUOTES = "\"'"

_QUOTED = re.compile(r"""(?P<quote>["'])(?P<text>((?!(?P=quote)).)*)(?P=quote)""", re.DOTALL)
_REFERENCE = re.compile(r"\$\{([^}]*)\}")


def has_reference(text: str) -> bool:
    """Report whether `text` holds a ``${NAME}``."""
    return _REFERENCE.search(text) is not None


def expand(text: str, lookup: Callable[[str], str]) -> str:
    """Return `text` with each ``${NAME}`` replaced by ``lookup(NAME)``."""
    return _REFERENCE.sub(lambda match: lookup(match[1]), text)


def unquoted(text: str) -> str:
    """Return `text` without blanks around it, and without one pair of quotes.

    Some versions of ``docker run --env-file`` take quotes as part of the value; no provider's key has any.
    """
    text = text.strip(" \t")
    found = _QUOTED.fullmatch(text)
    return found["text"].strip(" \t") if found is not None else text


def variable(name: str, environ: Mapping[str, str]) -> str:
    """Return the value of the environment variable `name`, which is a secret, without quotes around it.

    :raises ValueError: it is unset or empty: a header or password without it would be wrong.
    """
    value = unquoted(environ.get(name) or "")
    if not value:
        raise ValueError(f"the environment has no {name}")
    return value
