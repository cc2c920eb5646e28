"""Memory of a process that has started."""

from __future__ import annotations

import gc


def settle() -> None:
    """Exempt what starting up has made from all later garbage collections: it is never freed anyway."""
    gc.collect()
    gc.freeze()
