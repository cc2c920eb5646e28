"""Budget of values: how much of an upstream's JSON one response may make of itself."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

from stream_proxy.aggregate.arrays import Entries
from stream_proxy.aggregate.merge import Object
from stream_proxy.aggregate.pieces import PieceEncoder
from stream_proxy.json_bounds import response_too_many_values
from stream_proxy.json_steps import Steps, escapes_exceed_steps, values_exceed_steps
from stream_proxy.lenient_json import escapes_exceed, values_exceed
from stream_proxy.limits import MAX_VALUES

#: Events up to this size are merged without looking at the work that this is.
LIGHT_BYTES = 16_384
# The cost of what is not only decoded, in decoded values: some hundred bytes, and a microsecond or more.
_NODE_WEIGHT = 16
_CHOICE_WEIGHT = 512
# The same for one event, whose merging is a single step.
_STEP_WEIGHT = 32
# Entries that are no objects are only appended: so many of them cost as much as one that is merged.
_ENTRIES_PER_NODE = 8
# Whatever the limit, so much is possible; what counts then is the result.
_LEAST_NODES = 4096
_LEAST_CHOICES = 128
# Bytes of JSON that make a node, at least, and a value. Of the shortest values, twice the limit may be held
# for a while; to measure for their sake more often would slow honest streams.
_NODE_BYTES = 3
_VALUE_BYTES = 3
# The nodes and the values are counted again after at least this share of the limit.
_SHARE = 4


class ValueBudget:
    """Bounds of one response whose limit is `most` values.

    An event is judged before it is decoded, a chunk before it is merged, and the aggregate from time to time:
    never before so much came that the limit can be exceeded.
    """

    def __init__(self, most: int = MAX_VALUES) -> None:
        self.most = most
        #: How many things can be kept one by one.
        self.most_nodes = max(most // _NODE_WEIGHT, _LEAST_NODES)
        #: How many bytes of chunks can be merged before `check` is due.
        self.room = self.most_nodes * _NODE_BYTES
        self._values_room = most * _VALUE_BYTES

    def check_event(self, data: bytes) -> None:
        """Judge the data of an event, which is decoded in a single step, by its values and escapes.

        :raises APIError: there are too many.
        """
        self.check_json(data)
        if escapes_exceed(data, self.most):
            raise response_too_many_values(self.most)

    def check_long_event(self, data: bytes) -> Steps[None]:
        """Judge the data of a long event as `check_event` does, in steps."""
        if (yield from values_exceed_steps(data, self.most)):
            raise response_too_many_values(self.most)
        if (yield from escapes_exceed_steps(data, self.most)):
            raise response_too_many_values(self.most)

    def check_json(self, data: bytes) -> None:
        """Judge a result by its JSON.

        :raises APIError: it has too many values.
        """
        if values_exceed(data, self.most):
            raise response_too_many_values(self.most)

    def check_values(self, count: int) -> None:
        """Judge a result by the number of its values.

        :raises APIError: there are too many.
        """
        if count > self.most:
            raise response_too_many_values(self.most)

    def check_chunk(self, chunk: Object) -> None:
        """Judge a decoded chunk larger than `LIGHT_BYTES` by the work of merging it.

        :raises APIError: it is too much for one step.
        """
        most = max(self.most // _STEP_WEIGHT, _LEAST_NODES)
        choices = chunk.get("choices")
        entries: list[Any] = choices if isinstance(choices, list) else []
        work = len(chunk) + len(entries)
        # Arrays beside a delta, such as log probabilities, are extended at once, whatever they hold.
        heavy: list[object] = [value for value in chunk.values() if isinstance(value, dict)]
        for entry in entries[:most]:
            if isinstance(entry, dict):
                heavy += [
                    value for key, value in entry.items() if isinstance(value, dict) and key != "logprobs"
                ]
                work += len(entry)
        for value in heavy:
            if work <= most:
                work += count_nodes(value, most)
        if work > most:
            raise response_too_many_values(self.most)

    def check_nodes(self, count: int) -> None:
        """Judge the number of things that are kept one by one.

        :raises APIError: there are too many.
        """
        if count > self.most_nodes:
            raise response_too_many_values(self.most)

    def check_choices(self, count: int) -> None:
        """Judge the number of choices.

        :raises APIError: there are too many.
        """
        if count > max(self.most // _CHOICE_WEIGHT, _LEAST_CHOICES):
            raise response_too_many_values(self.most)

    def check(
        self, messages: Iterable[Object], outline: Callable[[], Generator[int, None, object]]
    ) -> Generator[int, None, int]:
        """Judge the aggregate, and return how many bytes of chunks can be merged before that is due again.

        Yield after each step what it cost.

        :param messages: what is put together piece by piece.
        :param outline: returns the whole without its texts, in steps, for a `PieceEncoder`.
        :raises APIError: it has too many values.
        """
        nodes = sum(count_nodes(message, self.most_nodes) for message in messages)
        self.check_nodes(nodes)
        self._values_room -= self.room
        if self._values_room < 0:
            encoder = PieceEncoder()
            for _ in encoder.pieces((yield from outline())):
                yield encoder.cost
            self.check_values(encoder.values)
            left = max(self.most - encoder.values, self.most // _SHARE)
            self._values_room = left * _VALUE_BYTES
        self.room = max(self.most_nodes - nodes, self.most_nodes // _SHARE) * _NODE_BYTES
        return self.room


def count_nodes(value: object, most: int) -> int:
    """Return how many members and entries a tree, or a delta, has to merge; stop counting beyond `most`."""
    count = 0
    pending = [value]
    while pending and count <= most:
        value = pending.pop()
        if isinstance(value, dict):
            count += len(value)
            pending += [member for member in value.values() if isinstance(member, dict | list | Entries)]
        else:
            entries = value.entries if isinstance(value, Entries) else value
            if isinstance(entries, list):
                objects = [entry for entry in entries if isinstance(entry, dict)]
                count += len(objects) + (len(entries) - len(objects)) // _ENTRIES_PER_NODE
                pending += objects
    return count
