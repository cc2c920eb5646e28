"""The chunked transfer coding (RFC 9112 section 7.1) of answers, decoded a read at a time."""

from __future__ import annotations

from twisted.web.http import _ChunkedTransferDecoder

# How long a plain size line is at most. Longer ones, extensions and what is malformed are Twisted's
# business.
_SIZE_LINE = 9
_HEX_DIGITS = b"0123456789abcdefABCDEF"


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
        at, total, find = 0, len(data), data.find
        while (line_end := find(b"\r\n", at, at + _SIZE_LINE)) > at:
            digits = data[at:line_end]
            if digits.translate(None, _HEX_DIGITS):  # int() takes prefixes, signs and underscores, too
                break
            size = int(digits, 16)
            start = line_end + 2
            end = start + size
            if not size or end + 2 > total or data[end : end + 2] != b"\r\n":
                break
            contents.append(data[start:end])
            at = end + 2
        if contents:
            self.dataCallback(b"".join(contents))
        return data[at:] if at else data
