"""The frame of what gathers the events of a stream into one answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from stream_proxy.aggregate.sse import ServerSentEvent
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, IncompleteStreamError, upstream_error
from stream_proxy.lenient_json import decode_json


class EventAccumulator(ABC):
    """Takes events up to the terminal one, then has one JSON answer, or the error that ended the call.

    Sans-I/O: `feed` it what an `SSEDecoder` returns and tell it by `end` that the stream is over. Once there
    is an answer or an error, both do nothing.
    """

    def __init__(self) -> None:
        self._answer: bytes | None = None
        self._failure: APIError | None = None

    @property
    def complete(self) -> bool:
        """Whether the answer is there, which it is as soon as the terminal event has come."""
        return self._answer is not None

    def feed(self, event: ServerSentEvent) -> None:
        """Take one event.

        :raises APIError: the upstream reported an error, sent what is not JSON, or went beyond the bound.
        """
        if self._answer is None and self._failure is None:
            try:
                self._take(event)
            except (APIError, ValueError, RecursionError) as error:
                raise self._fail(error) from None

    def end(self, stray: bytes = b"", *, clean: bool = True) -> None:
        """The stream is over.

        :param stray: the decoder's `SSEDecoder.stray`: a JSON error that came without being an event.
        :param clean: whether the body ended as its framing said it would.
        :raises APIError: it ended before its terminal event.
        """
        if self._answer is None and self._failure is None:
            try:
                self._take_end(stray, clean)
            except (APIError, ValueError, RecursionError) as error:
                raise self._fail(error) from None

    def result_bytes(self) -> bytes:
        """The answer as JSON.

        :raises IncompleteStreamError: it is not there yet.
        :raises APIError: the call failed.
        """
        if self._failure is not None:
            raise self._failure
        if self._answer is None:
            raise IncompleteStreamError("The stream has not delivered its terminal event yet.")
        return self._answer

    def result(self) -> dict[str, Any]:
        """The answer as a new dictionary; raises as `result_bytes` does."""
        answer: dict[str, Any] = decode_json(self.result_bytes())
        return answer

    @abstractmethod
    def _take(self, event: ServerSentEvent) -> None:
        """Take an event; set ``_answer`` with the terminal one. A ValueError means that it is not JSON."""

    @abstractmethod
    def _take_end(self, stray: bytes, clean: bool) -> None:
        """Set ``_answer`` if the stream was complete all the same, else raise."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of what was gathered."""

    def _fail(self, error: Exception) -> APIError:
        if not isinstance(error, APIError):
            error = upstream_error(
                f"The upstream's event stream holds data that is no usable JSON: {error}.",
                ErrorCode.UPSTREAM_MALFORMED,
            )
        self._failure = error
        self._release()
        return error


def stray_json(stray: bytes) -> dict[str, Any] | None:
    """The JSON object that stray lines are, if they are one."""
    try:
        value = decode_json(stray)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
