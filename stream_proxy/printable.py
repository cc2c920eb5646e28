"""Text that may be printed or shown, whatever came from outside. Sans-I/O."""

from __future__ import annotations


def printable(text: str, kept: str = "") -> str:
    """Return `text` with all characters escaped that are neither printable nor in `kept`.

    What comes from outside could forge entries, or command the terminal that shows them.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in kept else ascii(each)[1:-1] for each in text)
