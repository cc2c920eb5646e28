"""Base of the accumulators, which aggregate the events of a stream into one JSON result."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

from stream_proxy.aggregate.budget import ValueBudget
from stream_proxy.aggregate.reading.content_count import ContentCount
from stream_proxy.aggregate.sse import ServerSentEvent
from stream_proxy.aggregate.stream_errors import find_error
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, IncompleteStreamError, upstream_error
from stream_proxy.json_steps import LONG_BYTES, Steps, costing, valid_utf8_steps
from stream_proxy.lenient_json import decode_json
from stream_proxy.limits import MAX_VALUES


# Not an ABC: a compiled subclass of an interpreted class frees its objects without telling weak references.
class EventAccumulator:
    """Aggregates events up to the terminal one into a JSON result, or the error that ended the call.

    Sans-I/O: pass the events of an `SSEDecoder` to `feed`, and call `end` at the end of the stream. Once
    there is a result or an error, neither has an effect.

    A large result takes long to put together. With `by_steps` the terminal event only begins that, and
    whoever feeds it goes through the `steps` then, before there is a result; and after what was fed through
    the `pending` ones.

    Beside the result there is what a log wants to know: how many events brought some of it, and what model
    and usage the stream `reported`, as decoded JSON.
    """

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        self.by_steps = False
        self._max_values = max_values
        self._brief = min(max_values, LONG_BYTES)
        self._budget = ValueBudget(max_values)
        self._result: list[bytes] | None = None  # in pieces
        self._steps: Iterator[int] | None = None  # what is left to do after the terminal event
        self._pending: Iterator[int] | None = None  # the rest of the work on what was fed
        self._failure: APIError | None = None
        #: Counts the events that brought something of the result.
        self.content = ContentCount()
        #: The model and the usage that the stream gives, once it is complete; ``None`` where it gives none.
        self.reported: tuple[object, object] = (None, None)

    @property
    def complete(self) -> bool:
        """Whether the terminal event has come: there is a result, or there are `steps` to it."""
        return self._result is not None or self._steps is not None

    def feed(self, event: ServerSentEvent) -> None:
        """Process one event.

        :raises APIError: the upstream reported an error, sent invalid JSON, or exceeded the bound.
        """
        # Compiled code takes what is tested directly to be ``None`` to the end, though `_process` may set it.
        over = self._result is not None or self._steps is not None or self._failure is not None
        if event.data and not over:
            try:
                if len(event.data) > self._brief:
                    if len(event.data) > LONG_BYTES:
                        for _ in self.feed_long(event):
                            pass
                        return
                    if len(event.data) > self._max_values:  # a byte is no more than a value
                        self._budget.check_event(event.data)
                self._process(event)
            except (APIError, ValueError, RecursionError) as error:
                raise self._fail(error) from None
            if self._steps is not None:
                self._go_on()

    def feed_long(self, event: ServerSentEvent) -> Iterator[int]:
        """Process an event, whose data may be long and no valid UTF-8 yet, in steps; yield what each cost.

        :raises APIError: as `feed` does.
        """
        if len(event.data) <= LONG_BYTES:
            self.feed(event)
            return
        if self.complete or self._failure is not None:
            return
        try:
            yield from costing(self._long_event(event))
            yield from self.pending()
        except (APIError, ValueError, RecursionError) as error:
            raise self._fail(error) from None
        if self._steps is not None:
            self._go_on()

    def pending(self) -> Iterable[int]:
        """Return the steps of the work that is left to do on what was fed, with the cost of each.

        :raises APIError: as `feed` does; the steps do.
        """
        return () if self._pending is None or self.complete else self._do_pending(self._pending)

    def end(self, stray: bytes = b"", *, clean: bool = True) -> None:
        """Process the end of the stream; the events of `SSEDecoder.end` come before it.

        :param stray: what `SSEDecoder.stray` returns: it may be a JSON error, sent outside of any event.
        :param clean: whether the body ended as its framing said it would.
        :raises APIError: the stream ended before its terminal event.
        """
        if not self.complete and self._failure is None:
            try:
                reported = find_error(stray)
                if reported is not None:
                    self._process(ServerSentEvent("error", reported))
                self._process_end(clean)
            except (APIError, ValueError, RecursionError) as error:
                raise self._fail(error) from None
            if self._steps is not None:
                self._go_on()

    def steps(self) -> Iterator[int]:
        """Yield the cost of each step to the result, in bytes of small events that take as long.

        :raises APIError: the result exceeds a bound.
        """
        steps = self._steps
        if steps is not None:
            try:
                yield from steps
            except (APIError, ValueError, RecursionError) as error:
                raise self._fail(error) from None
            finally:
                self._steps = None

    def result_pieces(self) -> list[bytes]:
        """Return the result as JSON in pieces of about 128 KiB, a small one as a single one.

        :raises IncompleteStreamError: there is no result yet.
        :raises APIError: the call failed.
        """
        if self._failure is not None:
            raise self._failure
        if self._result is None:
            raise IncompleteStreamError("The stream has not delivered its terminal event yet.")
        return self._result

    def result_bytes(self) -> bytes:
        """Return the result as JSON; raise as `result_pieces` does."""
        pieces = self.result_pieces()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def result(self) -> dict[str, Any]:
        """Return the result as a new dictionary; raise as `result_bytes` does."""
        result: dict[str, Any] = decode_json(self.result_bytes())
        return result

    def _long_event(self, event: ServerSentEvent) -> Steps[None]:
        data = yield from valid_utf8_steps(event.data)
        if len(data) > self._max_values:
            yield from self._budget.check_long_event(data)
        yield from self._process_long(ServerSentEvent(event.event, data))

    @abstractmethod
    def _process(self, event: ServerSentEvent) -> None:
        """Process an event; the terminal one sets ``_result`` or ``_steps``.

        :raises ValueError: it holds invalid JSON.
        """

    @abstractmethod
    def _process_long(self, event: ServerSentEvent) -> Steps[None]:
        """Process a long event as `_process` does, in steps."""

    @abstractmethod
    def _process_end(self, clean: bool) -> None:
        """Set ``_result`` or ``_steps`` if the stream is complete without its terminal event, else raise."""

    @abstractmethod
    def _release(self) -> None:
        """Free what was held for the result."""

    def _do_pending(self, steps: Iterator[int]) -> Iterator[int]:
        try:
            yield from steps
        except (APIError, ValueError, RecursionError) as error:
            raise self._fail(error) from None
        finally:
            self._pending = None

    def _put_off(self, steps: Iterator[int]) -> None:
        """Go through the steps of some work now, or leave them pending if whoever feeds this does it."""
        if not self.by_steps:
            for _ in steps:
                pass
        elif self._pending is None:
            self._pending = steps

    def _go_on(self) -> None:
        """Go through the steps now, unless whoever feeds this does it."""
        if not self.by_steps:
            for _ in self.steps():
                pass

    def _fail(self, error: Exception) -> APIError:
        if not isinstance(error, APIError):
            error = upstream_error(
                f"The upstream's event stream holds data that is no usable JSON: {error}.",
                ErrorCode.UPSTREAM_MALFORMED,
            )
        self._failure = error
        self._release()
        return error
