"""Scan of an event stream for content, read by read, without decoding events. Sans-I/O."""

from __future__ import annotations

from stream_proxy.observe.kinds import APIKind
from stream_proxy.observe.stream_watch import CONTENT

# What is kept of a line that a read cut; of a longer one only as much as an expression needs.
_MOST_LINE, _CUT_BYTES = 4_096, 64


class ContentScan:
    """Scan of one stream.

    :param kind: the API, which must be known.
    """

    def __init__(self, kind: APIKind) -> None:
        self._content = CONTENT[kind]
        self._line = b""

    def feed(self, data: bytes) -> bool:
        """Report whether the next bytes have content."""
        begun = self._line + data if self._line else data
        line = begun[begun.rfind(b"\n") + 1 :]
        self._line = line if len(line) <= _MOST_LINE else line[-_CUT_BYTES:]
        return self._content.search(begun) is not None
