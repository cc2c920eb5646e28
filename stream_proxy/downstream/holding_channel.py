"""Holding channel: little is held of what a client sends behind a request that is being served."""

from __future__ import annotations

from twisted.web.http import HTTPChannel


class HoldingChannel(HTTPChannel):
    """Channel that stops reading once it holds more than 16 KiB.

    Twisted's reads on, without a bound, while the client does not take the response. Reading goes on when the
    response is complete, or with :meth:`release`.
    """

    def rawDataReceived(self, data: bytes) -> None:
        if self._handlingRequest:
            self.hold(data)
        else:
            super().rawDataReceived(data)

    def hold(self, data: bytes) -> None:
        """Hold what comes behind the request that is being served."""
        # In one piece: to add up the lengths of many on each read would take long.
        self._dataBuffer = [b"".join((*self._dataBuffer, data))]
        if self.is_full:
            self.pause_reading()

    @property
    def is_full(self) -> bool:
        """Whether so much is held that nothing more is read."""
        return sum(map(len, self._dataBuffer)) > self._optimisticEagerReadSize

    def release(self) -> bytes:
        """Return what is held, and read again."""
        if self.is_full:
            self.resume_reading()
        held, self._dataBuffer = b"".join(self._dataBuffer), []
        return held

    def pause_reading(self) -> None:
        """Read nothing for now."""
        self._networkProducer.pauseProducing()

    def resume_reading(self) -> None:
        """Read again."""
        self._networkProducer.resumeProducing()
