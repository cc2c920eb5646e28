"""Channels that take little memory: of attributes, and of what a client sends behind a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.web.http import HTTPChannel
from twisted.web.server import Request

from stream_proxy.limits import Limits


class LimitedSite(Protocol):
    """Site with what Twisted looks for in each of its channels."""

    limits: Limits
    requestFactory: Callable[..., Request]


class SiteChannel(HTTPChannel):
    """Channel that asks its site for what all channels of a site have alike.

    Twisted's attributes nearly fill the dictionary whose names CPython shares among the instances of a class;
    with more, each connection takes a kilobyte and a half for names of its own. So subclasses have slots.
    """

    __slots__ = ("site",)

    site: LimitedSite

    @property
    def requestFactory(self) -> Callable[..., Request]:  # type: ignore[override]
        return self.site.requestFactory

    @property
    def MAX_LENGTH(self) -> int:  # type: ignore[override]
        return self.site.limits.max_header_bytes

    @property
    def totalHeadersSize(self) -> int:  # type: ignore[override]
        return self.MAX_LENGTH

    @property
    def maxHeaders(self) -> int:  # type: ignore[override]
        return self.site.limits.max_header_count


class HoldingChannel(SiteChannel):
    """Channel that stops reading once it holds more than 16 KiB.

    Twisted's reads on, without a bound, while the client does not take the response. Reading goes on when the
    response is complete, or with :meth:`release`.
    """

    __slots__ = ()

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
