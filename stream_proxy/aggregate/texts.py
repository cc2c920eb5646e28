"""Texts under construction: strings that arrive in fragments."""

from __future__ import annotations

from io import StringIO

# Texts that a model writes, and data: two equal fragments of one are "ha" and "ha", never a repeat.
KNOWN_TEXTS = frozenset(
    {
        "content",
        "data",
        "input",
        "name",
        "partial_json",
        "reasoning",
        "reasoning_content",
        "reasoning_text",
        "refusal",
        "summary",
        "text",
        "thinking",
        "thought",
        "transcript",
    }
)


class VendorText:
    """A string of unknown meaning: a label if every fragment is the same (Groq's ``channel``), else a text.

    :param first: the first fragment.
    """

    __slots__ = ("_first", "_repeats", "_text")

    def __init__(self, first: str) -> None:
        self._first = first
        self._repeats = 1
        self._text: StringIO | None = None

    def write(self, fragment: str) -> None:
        """Add a fragment."""
        if self._text is None:
            if fragment == self._first:
                self._repeats += 1
                return
            self._text = StringIO()
            self._text.write(self._first * self._repeats)
        self._text.write(fragment)

    def getvalue(self) -> str:
        """Return the whole."""
        return self._first if self._text is None else self._text.getvalue()


def holds(text: object, value: str) -> bool:
    """Report whether `text`, which may be under construction, is `value`.

    A long one is not built for each of its fragments.
    """
    if isinstance(text, StringIO):
        return text.tell() == len(value) and text.getvalue() == value
    return text.getvalue() == value if isinstance(text, VendorText) else text == value
