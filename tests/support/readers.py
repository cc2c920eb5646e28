"""Readers of event streams, compared with the decoder and the accumulator alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from stream_proxy import APIError, SSEDecoder
from stream_proxy.aggregate.accumulator import EventAccumulator
from stream_proxy.aggregate.reading.stream_reader import StreamReader

Outcome = tuple[object, ...]
A = TypeVar("A", bound=EventAccumulator)


def outcome_of(
    reads: list[bytes],
    accumulator: A,
    kind: Callable[[SSEDecoder, A], StreamReader] | None,
    max_event_bytes: int,
    *,
    clean: bool = True,
) -> Outcome:
    """Return after which read there was a result and what it was, or the error.

    :param kind: the reader; with ``None`` each event is decoded and fed.
    """
    decoder = SSEDecoder(max_event_bytes=max_event_bytes)
    reader = None if kind is None else kind(decoder, accumulator)
    number = 0
    try:
        for read in reads:
            number += 1
            if reader is not None:
                reader.feed(read)
            else:
                for event in decoder.feed(read):
                    accumulator.feed(event)
            if accumulator.complete:
                break
        if not accumulator.complete:
            if reader is not None:
                reader.end()
            for event in decoder.end() if clean else ():
                accumulator.feed(event)
            accumulator.end(decoder.stray(), clean=clean)
        return number, accumulator.result_bytes()
    except APIError as error:
        return number, error.status, error.type, error.code, error.message


def feed_all(
    reads: list[bytes], accumulator: A, kind: Callable[[SSEDecoder, A], StreamReader]
) -> dict[str, Any]:
    """Feed an accumulator with whole reads, and return its result."""
    reader = kind(SSEDecoder(), accumulator)
    for read in reads:
        reader.feed(read)
    return accumulator.result()
