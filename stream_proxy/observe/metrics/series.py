"""Series: what a scrape shows of one family. Sans-I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from stream_proxy.observe.metrics.cells import Counter, Histogram, Labels
from stream_proxy.observe.metrics.families import Family

#: The value of a label set. Cells are read when their part of a scrape is made.
Value: TypeAlias = Counter | Histogram | float
#: A family with all its label sets.
Series: TypeAlias = tuple[Family, Sequence[tuple[Labels, Value]]]
