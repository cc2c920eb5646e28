"""What the flows tell a capture, if there is one. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from stream_proxy.http.headers import RawHeader


class ExchangeCapture(Protocol):
    """Capture of one exchange, from its head to its end."""

    @property
    def answered(self) -> bool:
        """Whether it has the head of the response."""

    def request_part(self, data: bytes) -> None:
        """Take a part of the request's body."""

    def response_head(self, status: int, reason: bytes, fields: Iterable[RawHeader]) -> None:
        """Take the head of the response, as the client is sent it."""

    def response_part(self, data: bytes) -> None:
        """Take a part of the response's body."""

    def response_end(self) -> None:
        """Note that the response is whole."""

    def reading(
        self, status: int, fields: Iterable[RawHeader], read: Callable[[bytes], Iterator[int]]
    ) -> Callable[[bytes], Iterator[int]]:
        """Return `read`, which takes the reads of an upstream's response, made to let the capture see them.

        :param status: of the response.
        :param fields: its header fields.
        """

    def socket_part(self, data: bytes, *, sent: bool) -> None:
        """Take bytes of an open WebSocket, as one peer sent them.

        :param sent: the client did.
        """

    def end(self) -> None:
        """Take the end of the exchange; its record is complete."""
