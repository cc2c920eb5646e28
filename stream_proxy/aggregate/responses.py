"""Accumulator of the Responses API: the events of a stream in, one Response out.

Shapes are those of the OpenAI API reference, "Streaming events" of the Responses API.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby, islice

from msgspec import Raw

from stream_proxy.aggregate.accumulator import EventAccumulator
from stream_proxy.aggregate.pieces import PIECE_BYTES, PieceEncoder
from stream_proxy.aggregate.reported_error import status_of
from stream_proxy.aggregate.response_items import ResponseItems
from stream_proxy.aggregate.response_texts import ITEM_EVENTS, members_of, value_of
from stream_proxy.aggregate.sse import ServerSentEvent
from stream_proxy.aggregate.stream_errors import ERROR_KEYS, error_in, names_error, response_error
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, response_too_large, upstream_error
from stream_proxy.json_steps import LONG_BYTES, Steps, decode_steps, done
from stream_proxy.lenient_json import encode_json, valid_utf8
from stream_proxy.limits import MAX_HELD_BYTES, MAX_VALUES

_COMPLETED = "response.completed"
_FAILED = "response.failed"
_DONE = "response.done"  # the older name of the terminal event, whatever the Response's status
_TERMINAL = frozenset({_COMPLETED, _FAILED, "response.incomplete", _DONE})
_NULL = Raw(b"null")
_NO_OUTPUT = re.compile(rb"null|\[\s*\]")

_DATA = b"data: "
_KINDS = {b"event: " + kind.encode(): kind for kind in ITEM_EVENTS}
# The most bytes of events are kept undecoded.
_MOST_DEFERRED = 65_536
# The least size of an event, and the most that may be held of one for each of its bytes.
_LEAST_EVENT_BYTES = 32
_MOST_GROWTH = 10

# So many members beside a failed Response are searched for what tells of its error.
_MOST_BESIDE = 256

_Members = dict[str, Raw]


class ResponseAccumulator(EventAccumulator):
    """Accumulator of a Responses stream, whose terminal event holds the whole Response.

    The result is that Response byte for byte, unless its ``output`` is empty, as the ChatGPT back end leaves
    it with ``store: false``. Then it is filled with the items, or else the texts, that the stream finished.

    :param max_bytes: the maximum size of the result, and of what is held before the terminal event, in bytes.
    :param max_values: the maximum number of values of one event, and of the result.
    """

    def __init__(self, *, max_bytes: int = MAX_HELD_BYTES, max_values: int = MAX_VALUES) -> None:
        super().__init__(max_values)
        self._max_bytes = max_bytes
        self._items = ResponseItems()
        self._deferred: list[bytes] = []
        #: How many bytes of events are kept undecoded.
        self.deferred_bytes = 0

    def _process(self, event: ServerSentEvent) -> None:
        kind, data = event.event, event.data
        if kind in ITEM_EVENTS:
            if b"\n" in data or not self.defer(b"event: %b\ndata: %b\n\n" % (kind.encode(), data)):
                self._add_deferred()
                self._items.take(kind, [data])
                self.content.add_kind(kind)
                self._bound()
            return
        done(self._processing(event))

    def _process_long(self, event: ServerSentEvent) -> Steps[None]:
        if event.event not in ITEM_EVENTS:
            yield from self._processing(event)
            return
        self._add_deferred()
        yield
        try:
            members = yield from members_of(event.data)
        except ValueError:
            return
        yield from self._items.add_long(event.event, members, event.data)
        self.content.add_kind(event.event)
        self._bound()

    def _processing(self, event: ServerSentEvent) -> Steps[None]:
        """Process an event that is none of the `ITEM_EVENTS` by its name."""
        kind, data = event.event, event.data
        named = kind.startswith("response.")
        if named and kind not in _TERMINAL and not names_error(kind):
            return
        word = data.strip()
        if word in (b"", b"null"):
            return
        if names_error(kind):
            raise (yield from _reported(data))
        if kind == "message" and word == b"[DONE]":
            raise upstream_error(
                "The upstream's stream ended without its terminal event: [DONE] came instead of it. "
                "Check that the upstream serves the Responses API under this path.",
                ErrorCode.UPSTREAM_INCOMPLETE,
            )
        try:
            members = yield from members_of(data)
        except ValueError:
            if kind == "message":
                value = yield from decode_steps(data)
                raise error_in(value) or ValueError("not an object") from None
            return
        if len(data) > LONG_BYTES:
            yield
        if not named:
            own_kind = value_of(members, "type")
            if not isinstance(own_kind, str) or not own_kind.startswith("response."):
                error = yield from _error_of(own_kind, members, data)
                if error is not None:
                    raise error
                return
            kind = own_kind
        if kind in _TERMINAL:
            yield from self._finish(kind, members)
        elif kind in ITEM_EVENTS:
            self._add_deferred()
            yield from self._items.add_long(kind, members, data)
            self.content.add_kind(kind)
            self._bound()
        elif names_error(kind):
            raise (yield from _reported(data))

    def defer(self, block: bytes) -> bool:
        """Keep events undecoded that matter only if the terminal event has no output.

        :param block: events as a stream has them: each an ``event:`` line with one of the `ITEM_EVENTS`, or
            with one that means nothing here, a ``data:`` line, and an empty line.
        :return: ``False`` if one of them might exceed a bound; then they have to be fed one by one.
        """
        size = self.deferred_bytes + len(block)
        if not self._has_room(size):
            self._add_deferred()
            size = len(block)
            if not self._has_room(size):
                return False
        self._deferred.append(block)
        self.content.add_block(block)
        self.deferred_bytes = size
        if size > _MOST_DEFERRED:
            self._add_deferred()
        return True

    def _has_room(self, size: int) -> bool:
        """Report whether no bound can be exceeded by events of that size."""
        held = self._items.held + size * _MOST_GROWTH
        count = self._items.count + size // _LEAST_EVENT_BYTES
        return held <= self._max_bytes and count <= self._budget.most_nodes and size <= self._max_values

    def _add_deferred(self) -> None:
        """Add the events that are kept undecoded to the items."""
        self.content.settle()
        blocks, self._deferred, self.deferred_bytes = self._deferred, [], 0
        for block in blocks:
            lines = (block if block.isascii() else valid_utf8(block)).split(b"\n")
            events = [line[len(_DATA) :] for line in lines[1::3]]
            at = 0
            for kind, group in groupby(lines[:-1:3]):
                start, at = at, at + len(list(group))
                name = _KINDS.get(kind)
                if name is not None:
                    self._items.take(name, events[start:at])

    def _bound(self) -> None:
        self._budget.check_nodes(self._items.count)
        if self._items.held > self._max_bytes:
            raise response_too_large(self._max_bytes)

    def _finish(self, kind: str, members: _Members) -> Steps[None]:
        result = bytes(members.get("response", _NULL))
        try:
            response = yield from members_of(result)
        except ValueError:
            raise upstream_error(
                f"The upstream's {kind} event holds no Response object.", ErrorCode.UPSTREAM_MALFORMED
            ) from None
        status = value_of(response, "status") if kind == _DONE else kind.removeprefix("response.")
        if status == "failed":
            names = [name for name in islice(members, _MOST_BESIDE) if name != "response"]
            beside = {name: value_of(members, name) for name in names}
            reported = yield from decode_steps(bytes(response.get("error", _NULL)))
            error = response_error(reported, event="failed", beside=beside)
            if error is not None:
                raise error
        self.reported = value_of(response, "model"), value_of(response, "usage")
        self.content.settle(value_of(members, "sequence_number"))
        if _NO_OUTPUT.fullmatch(response.get("output", _NULL)):
            self._add_deferred()
            if self._items.count:
                self._budget.check_nodes(len(response))
                complete = status not in ("failed", "incomplete")
                self._steps = self._rebuilding(response, result, complete=complete)
                return
        if len(result) > self._max_bytes:
            raise response_too_large(self._max_bytes)
        self._result = [result]
        self._release()

    def _rebuilding(self, response: _Members, as_sent: bytes, *, complete: bool) -> Iterator[int]:
        """Fill a Response's output with the items; yield after each step what it cost."""
        items = yield from self._items.output(value_of(response, "id"), complete=complete)
        result: Raw | dict[str, object]
        if not items:
            result = Raw(as_sent)
        elif self._items.held > PIECE_BYTES:
            result = {**response, "output": items}
        else:
            encoded = [Raw(encode_json(item)) for item in items]
            result = Raw(encode_json({**response, "output": encoded}))
        self._result = yield from PieceEncoder().collect(result, self._max_bytes)
        self._release()

    def _process_end(self, clean: bool) -> None:
        how = "before" if clean else "because its connection broke off before"
        raise upstream_error(
            f"The upstream's stream ended without its terminal event: it ended {how} response.completed, "
            "response.incomplete or response.failed came. Try the request again.",
            ErrorCode.UPSTREAM_INCOMPLETE if clean else ErrorCode.UPSTREAM_CUT,
        )

    def _release(self) -> None:
        self._items = ResponseItems()
        self.content.settle()
        self._deferred = []


def _error_of(kind: object, members: _Members, data: bytes) -> Steps[APIError | None]:
    """Return the error that an object reports which is no event of this API, or ``None``.

    One with a type of its own, such as ``codex.rate_limits``, may be news of another kind.
    """
    if isinstance(kind, str) and names_error(kind):
        return (yield from _reported(data))
    if members.keys().isdisjoint(ERROR_KEYS):
        return None
    value = yield from decode_steps(data)
    if isinstance(kind, str) and not value.get("error") and status_of([value]) is None:
        return None
    return error_in(value)


def _reported(data: bytes) -> Steps[APIError]:
    """Return the error of an ``error`` event; data that is not JSON is its message."""
    try:
        error = yield from decode_steps(data)
    except ValueError:
        error = data.decode("utf-8", "replace").strip()
    return response_error(error, event="error") or upstream_error("The upstream reported an error.")
