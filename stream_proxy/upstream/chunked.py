"""Decoder for the chunked transfer coding (RFC 9112 section 7.1), which decodes a whole read at a time."""

from __future__ import annotations

from twisted.web.http import _ChunkedTransferDecoder

# Where a plain size line ends at the latest: its CRLF is within so many bytes. Longer lines, extensions and
# errors are left to Twisted's decoder.
_SIZE_LINE = 9
_HEX_DIGITS = b"0123456789abcdefABCDEF"


class ChunkedDecoder(_ChunkedTransferDecoder):
    """Twisted's decoder with a shortcut for chunks that are complete in one read.

    Twisted makes a call for each chunk. An event stream has a chunk for each event, and a read holds many of
    them: their contents are delivered together.
    """

    def dataReceived(self, data: bytes) -> None:
        """Decode the next bytes."""
        while data:
            if self.state == "CHUNK_LENGTH" and not self._buffer:
                data = self._whole_chunks(data)
                if data:
                    # The next chunk is incomplete, or not plain.
                    super().dataReceived(data)
                return
            if self.state != "BODY":
                super().dataReceived(data)
                return
            rest = self.length + 2 - len(self._buffer)  # of this chunk, with its CRLF
            super().dataReceived(data[:rest])
            data = data[rest:]

    def _whole_chunks(self, data: bytes) -> bytes:
        """Deliver the contents of the complete chunks at the start of `data`; return the rest."""
        contents = []
        at, total, find = 0, len(data), data.find
        while (line_end := find(b"\r\n", at, at + _SIZE_LINE)) > at:
            digits = data[at:line_end]
            if digits.translate(None, _HEX_DIGITS):  # int() would accept prefixes, signs and underscores
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
