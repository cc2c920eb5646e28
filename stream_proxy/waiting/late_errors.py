"""Late errors: those that a client was sent after an early head, and so without their status. Sans-I/O."""

from __future__ import annotations

#: How many are kept for retries.
MOST_LATE_ERRORS = 256
#: The largest that is, in bytes.
MOST_ERROR_BYTES = 65_536
#: Errors after which the same call may well succeed.
_PASSING = (408, 409, 429)


def is_lasting(status: int) -> bool:
    """Report whether a call with this status would only fail again."""
    return 400 <= status < 500 and status not in _PASSING
