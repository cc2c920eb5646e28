"""Values of labels that come from outside: bounded in number and in length. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterable

#: The value that stands for all names beyond the bound.
OTHER = "other"
#: How many names each rule has.
MOST_NAMES = 100
#: How long a name may be.
MOST_CHARACTERS = 64


class Names:
    """Names that are labels of their own: the first that come, or those that are pinned.

    :param pinned: the only names that count; ``None``: the first `most`.
    """

    def __init__(self, pinned: Iterable[str] | None = None, most: int = MOST_NAMES) -> None:
        self._labels = {label_of(name) for name in pinned or ()}
        self._most = most if pinned is None else 0

    def label(self, name: str | None) -> str:
        """Return the value of the label for `name`."""
        if name is None:
            return OTHER
        label = label_of(name)
        if label not in self._labels:
            if len(self._labels) >= self._most:
                return OTHER
            self._labels.add(label)
        return label


def label_of(name: str) -> str:
    """Return the printable characters of a name, the first of them if they are too many."""
    label = name[:MOST_CHARACTERS]
    if not label.isprintable():
        label = "".join(filter(str.isprintable, label))
    return label or OTHER
