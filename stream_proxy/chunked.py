"""The chunked transfer coding (RFC 9112 section 7.1) of answers, decoded a read at a time."""

from __future__ import annotations

import re

from twisted.web.http import _ChunkedTransferDecoder

# A size line in its plain form. Longer sizes, extensions and what is malformed are Twisted's business.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,7})\r\n")


class ChunkedDecoder(_ChunkedTransferDecoder):
    """Twisted's decoder, which handles one chunk after the other, with a shorter way for whole chunks.

    An event stream has a chunk for each event, and a read holds many of them: their contents go on together.
    """

    def dataReceived(self, data: bytes) -> None:
        """Take the next bytes."""
        while data:
            if self.state == "CHUNK_LENGTH" and not self._buffer:
                data = self._whole_chunks(data)
                if data:
                    # What comes next is not whole, or not plain: as far as Twisted goes with it.
                    super().dataReceived(data)
                return
            if self.state != "BODY":
                super().dataReceived(data)
                return
            rest = self.length + 2 - len(self._buffer)  # of this chunk, with its line end
            super().dataReceived(data[:rest])
            data = data[rest:]

    def _whole_chunks(self, data: bytes) -> bytes:
        """Hand over the contents of the chunks that `data` begins with; what follows them is returned."""
        contents = []
        at, total = 0, len(data)
        match = _SIZE_LINE.match
        while (line := match(data, at)) is not None:
            start = line.end()
            end = start + int(line[1], 16)
            if end == start or end + 2 > total or data[end : end + 2] != b"\r\n":
                break
            contents.append(data[start:end])
            at = end + 2
        if contents:
            self.dataCallback(b"".join(contents))
        return data[at:] if at else data
