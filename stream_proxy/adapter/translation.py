"""Translation of one response of a service, as it arrives, into the chunks of a chat completion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from stream_proxy.adapter.chunks import ChunkWriter
from stream_proxy.adapter.payloads import Payload, PayloadDecoder
from stream_proxy.adapter.reader import Reader
from stream_proxy.adapter.shapes.outline import Outlines
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, proxy_error, upstream_error
from stream_proxy.json_bounds import check_payload, payload_checks
from stream_proxy.json_steps import LONG_BYTES, STEP_COST, marking
from stream_proxy.lenient_json import JSONObject, count_separators, decode_json, encode_json
from stream_proxy.limits import MAX_VALUES

# Bytes that can be checked in the time that it takes to read one.
_CHECKED_AT_ONCE = 2
Step: TypeAlias = tuple[int, bytes]
# A step of long work that makes no chunk.
_NO_CHUNK: Step = (STEP_COST, b"")

# Bytes that the work on a payload counts as, besides its own, and that each of its values does: what is read
# out of a few bytes takes as long as a long text.
_PAYLOAD_COST = 400
_VALUE_COST = 16


class Translation:
    """The translation of one body, in steps: a payload may be large, and a read may hold thousands of them.

    A step is the number of bytes that it counts as, and the chunk (JSON) that it made, which is mostly empty
    for what only prepares the next one.

    :param decoder: cuts the body into payloads.
    :param reader: finds what a payload holds.
    :param writer: writes that as chunks.
    :param max_values: how many values the response may have.
    """

    def __init__(
        self, reader: Reader, decoder: PayloadDecoder, writer: ChunkWriter, max_values: int = MAX_VALUES
    ) -> None:
        self._max_values = max_values
        self._reader = reader
        self._decoder = decoder
        self._writer = writer
        self._payloads = 0
        #: How many payloads have held some text, reasoning or tool call.
        self.content_payloads = 0
        self._progress = reader.progress()
        self._outlines = Outlines()
        self._structured = False
        self._announced = False
        #: The response is complete; bytes that still come are no part of it.
        self.complete = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add the next bytes, and yield the chunks (JSON) that they make, those before an error as well.

        :raises APIError: the service reports an error, or sends something that cannot be read.
        """
        return (chunk for _, chunk in self.steps(data) if chunk)

    def end(self) -> Iterator[bytes]:
        """Yield the last chunks of a body that has ended as its framing announced.

        :raises APIError: the stream lacks its end, or no payload held a response.
        """
        return (chunk for _, chunk in self.last_steps() if chunk)

    def steps(self, data: bytes) -> Iterator[Step]:
        """Yield the steps of the work on the next bytes; see `feed`."""
        if not self.complete:
            yield from self._translate(self._decoder.feed(data))

    def last_steps(self) -> Iterator[Step]:
        """Yield the steps of the work on the end; see `end`."""
        if self.complete:
            return
        yield from self._translate(self._decoder.end())
        if self.complete:
            return
        if not self._payloads and not self._outlines.count:
            raise upstream_error(
                "The service ended its answer without a single event; nothing was said.",
                ErrorCode.UPSTREAM_INCOMPLETE,
            )
        if self._reader.announces_end or (self._announced and self._writer.finish_reason is None):
            raise upstream_error(
                "The service's stream ended before it said that it was at its end.",
                ErrorCode.UPSTREAM_INCOMPLETE,
            )
        yield from self._finish()

    @property
    def usage(self) -> JSONObject | None:
        """OpenAI's usage, if the service has given a count."""
        return self._writer.usage

    def remarks(self) -> list[str]:
        """Return what the configuration seems to have wrong, now that the stream has ended."""
        self._progress.uncounted = self._progress.uncounted or self._writer.uncounted
        return self._progress.remarks()

    def _translate(self, payloads: Iterator[Payload | None]) -> Iterator[Step]:
        for payload in payloads:
            if payload is None:
                yield _NO_CHUNK
                continue
            data = payload.data
            if len(data) > LONG_BYTES:
                for _ in payload_checks(data, self._max_values):
                    yield _NO_CHUNK
            else:
                check_payload(data, self._max_values)
            yield _PAYLOAD_COST + len(data) // _CHECKED_AT_ONCE, b""
            if payload.bare and not (_is_json(data) or self._reader.is_marker(data)):
                raise self._broken()
            progress = self._progress
            reading = yield from marking(self._reader.read(payload, progress), _NO_CHUNK)
            yield len(data) + _VALUE_COST * count_separators(data), b""
            if reading is None:
                yield from self._outline(payload)
                continue
            self._payloads += 1
            self._announced = self._announced or reading.announces_end
            if not reading.aside:
                progress.after_text = reading.plain and not self._structured
            if reading.plain and self._structured:
                raise upstream_error(
                    "The service sent a payload that is no JSON among others that are; if it means nothing, "
                    "name it in the adapter's skipPayloads.",
                    ErrorCode.UPSTREAM_MALFORMED,
                )
            if reading.text or reading.reasoning or reading.tool_calls or reading.replacement:
                self.content_payloads += 1
            self._structured = self._structured or not (reading.plain or reading.aside)
            for chunk in self._writer.add(reading):
                yield _NO_CHUNK if chunk is None else _step(chunk)
            yield from self._outline(payload)
            if reading.done:
                yield from self._finish()
                return

    def _finish(self) -> Iterator[Step]:
        writer = self._writer
        if not writer.answered and writer.finish_reason != "content_filter":
            raise self._not_found()
        self.complete = True
        for chunk in writer.end():
            yield _step(chunk)

    def _outline(self, payload: Payload) -> Iterator[Step]:
        data = payload.data
        if not self._writer.answered and data.strip() and not self._reader.is_marker(data):
            yield from marking(self._outlines.add(payload.event, data), _NO_CHUNK)

    def _broken(self) -> APIError:
        if not self._payloads:
            return upstream_error(
                "The service's answer is no stream of events; check upstreamUrl.",
                ErrorCode.UPSTREAM_MALFORMED,
            )
        return upstream_error(
            "The service's stream ended in the middle of an event.", ErrorCode.UPSTREAM_INCOMPLETE
        )

    def _not_found(self) -> APIError:
        count, place = self._outlines.count, self._reader.content
        if not count:
            what = "The service's stream holds nothing but its end"
        elif count == 1:
            what = f"The service's one payload holds no text in {place}"
        else:
            what = f"None of the service's {count} payloads holds a text in {place}"
        seen = self._outlines.summary()
        advice = self._outlines.advice()
        return proxy_error(
            ErrorCode.CONTENT_NOT_FOUND,
            f"{what}; there came {seen}. {advice}" if seen else f"{what}. {advice}",
            should_retry=False,
            for_log=what,  # the names of a service's fields are not for a log
        )


def _step(chunk: JSONObject) -> Step:
    data = encode_json(chunk)
    return len(data), data


def _is_json(data: bytes) -> bool:
    try:
        return isinstance(decode_json(data), dict | list)
    except ValueError:
        return False
