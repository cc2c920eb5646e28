"""Accumulator of chat completions: the chunks of a stream in, one ``chat.completion`` out.

Shapes are those of the OpenAI API reference, "Chat completion chunk object" and "Chat completion object".
"""

from __future__ import annotations

from collections.abc import Iterator

from stream_proxy.aggregate.accumulator import EventAccumulator
from stream_proxy.aggregate.arguments import Arguments
from stream_proxy.aggregate.budget import LIGHT_BYTES
from stream_proxy.aggregate.choice import (
    Choice,
    assembled,
    completion,
    completion_by_steps,
    reported_in,
    size_by_steps,
    speak_in,
)
from stream_proxy.aggregate.merge import LONG, Object, overlay
from stream_proxy.aggregate.reading.argument_reader import ArgumentReader, Outline
from stream_proxy.aggregate.sse import ServerSentEvent
from stream_proxy.aggregate.stream_errors import chat_stream_error, error_in, is_ping, names_error
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, response_too_large, upstream_error
from stream_proxy.json_steps import Steps, decode_steps
from stream_proxy.lenient_json import EXACT, decode_json, encode_json
from stream_proxy.limits import MAX_HELD_BYTES, MAX_VALUES

# The first value that is not empty wins; those in Azure's first chunk are empty.
_FIRST_WINS = frozenset({"id", "created", "model"})
_DONE = b"[DONE]"
# Measuring encodes the whole aggregate. It is repeated after this share of the bound has been received.
_MEASURE_SHARE = 64
# What is made of so many bytes of chunks is put together at once.
_SMALL = LONG


class ChatCompletionsAccumulator(EventAccumulator):
    """Accumulator of a chat completion stream.

    The terminal event is ``data: [DONE]`` after a chunk with ``choices``. Without it a stream is complete if
    it ended cleanly, with a ``finish_reason`` on every choice and with all the choices that were asked for.

    :param n: the number of choices that the request asked for.
    :param max_bytes: the maximum size of the result as JSON.
    :param max_values: the maximum number of values of the result, and of one event.
    """

    def __init__(self, *, n: int = 1, max_bytes: int = MAX_HELD_BYTES, max_values: int = MAX_VALUES) -> None:
        super().__init__(max_values)
        self._n = n
        self._max_bytes = max_bytes
        self._top: Object = {}
        self._choices: dict[int, Choice] = {}
        self._seen_choices = False
        self._fed = 0
        self._measure_at = max_bytes
        self._check_at = self._budget.room

    def _process(self, event: ServerSentEvent) -> None:
        data = event.data
        if data == _DONE:  # without an exception for the JSON that it is not
            self._done()
            return
        try:
            chunk = decode_json(data)
        except ValueError as error:
            self._process_word(event, str(error))
            return
        self._process_chunk(chunk, event)

    def _process_long(self, event: ServerSentEvent) -> Steps[None]:
        try:
            chunk = yield from decode_steps(event.data)
        except ValueError as error:
            self._process_word(event, str(error))
            return
        yield
        self._process_chunk(chunk, event)

    def _process_word(self, event: ServerSentEvent, problem: str) -> None:
        """Process an event whose data is no JSON, which is an error where it should be."""
        word = event.data.strip()
        if word == _DONE:
            self._done()
        elif word and names_error(event.event):
            raise chat_stream_error(word.decode("utf-8", "replace")) from None
        elif word and event.event == "message":
            raise ValueError(problem)

    def _process_chunk(self, chunk: object, event: ServerSentEvent) -> None:
        """Process the JSON of an event."""
        kind = event.event
        if kind != "message" and chunk is not None and names_error(kind):
            raise chat_stream_error(chunk)
        if not isinstance(chunk, dict):
            if kind == "message" and chunk is not None:
                raise error_in(chunk) or _not_an_object()
            return
        if "choices" not in chunk and is_ping(chunk, kind):
            return
        size = len(event.data)
        if size > LIGHT_BYTES:
            self._budget.check_chunk(chunk)
        self._add(chunk)
        self._fed += size
        if self._fed > self._check_at or self._fed > self._measure_at:
            self._put_off(self._checks())

    def _checks(self) -> Iterator[int]:
        """Judge the aggregate, in steps, where that is due."""
        if self._fed > self._check_at:
            self._check_at += yield from self._budget.check(
                [choice.message for choice in self._choices.values()],
                lambda: completion_by_steps(self._top, self._choices, Outline()),
            )
        if self._fed > self._measure_at:
            yield from self._measure()

    def room(self) -> int:
        """Return how many bytes of chunks may follow before the aggregate is measured against its bound."""
        return self._measure_at - self._fed

    def lengthens(self, index: int, key: str) -> bool:
        """Report whether merging a delta with just a text under `key` appends it to a text of the choice."""
        choice = self._choices.get(index)
        return choice is not None and choice.lengthens(key)

    def arguments_at(self, index: int, call: int) -> Arguments | None:
        """Return the arguments that a fragment of the choice's call with the index `call` is appended to."""
        choice = self._choices.get(index)
        return None if choice is None else choice.arguments_at(call)

    def add_text(self, index: int, key: str, text: str, fed: int) -> None:
        """Merge a text that stands for those of several chunks.

        Each of them was the chunk before it with another text in one string. The caller has checked that they
        fit into `room`, and that the key `lengthens`.

        :param index: the index of a choice that earlier chunks had.
        :param key: the key of the text in the delta.
        :param fed: the size of those chunks' data in bytes.
        """
        self._choices[index].add_text(key, text)
        self._fed += fed
        self._check_at += fed  # a text is one value, however long

    def add_arguments(self, index: int, call: int, escaped: list[bytes], fed: int) -> None:
        """Add the fragments of a call's arguments, one from each of several chunks; see `add_text`.

        :param escaped: the fragments, each as it stands between the quotes of a JSON string.
        """
        arguments = self.arguments_at(index, call)
        if arguments is not None:
            arguments.extend(escaped)
        self._fed += fed
        self._check_at += fed

    def _add(self, chunk: Object) -> None:
        error = error_in(chunk)
        if error is not None:
            raise error
        top = self._top
        for key, value in chunk.items():
            if key == "choices":
                self._seen_choices = True
                if isinstance(value, list):
                    self._add_choices(value)
            elif key in _FIRST_WINS:
                if not top.get(key) and (value or key not in top):
                    top[key] = value
            elif key == "usage":
                if isinstance(value, dict) or not isinstance(top.get(key), dict):
                    overlay(top, {key: value})
            elif isinstance(value, dict):
                overlay(top, {key: value})
            elif value is None:
                top.setdefault(key, None)
            else:
                top[key] = value

    def _add_choices(self, entries: list[object]) -> None:
        self.content.add(speak_in(entries))
        for position, entry in enumerate(entries):
            if not isinstance(entry, dict):
                continue
            index = _index_of(entry, position)
            choice = self._choices.get(index)
            if choice is None:
                self._budget.check_choices(len(self._choices) + 1)
                choice = self._choices[index] = Choice()
            choice.add(entry)

    def _measure(self) -> Iterator[int]:
        """Compare the size of the aggregate, which may be far less than was received, with the bound."""
        room = self._max_bytes - (yield from size_by_steps(self._top, self._choices))
        if room < 0:
            raise response_too_large(self._max_bytes)
        self._measure_at = self._fed + max(room, self._max_bytes // _MEASURE_SHARE)

    def _done(self) -> None:
        if not self._seen_choices:
            raise upstream_error(
                "The upstream's stream ended without an answer: [DONE] came before any chunk with choices. "
                "Check that the upstream serves chat completions under this path.",
                ErrorCode.UPSTREAM_INCOMPLETE,
            )
        self._finish()

    def _finish(self) -> None:
        self.reported = reported_in(self._top, self._choices)
        if self._fed > _SMALL:
            self._steps = self._finishing()
            return
        result = encode_json(completion(self._top, self._choices, ArgumentReader()))
        if len(result) > self._max_bytes:
            raise response_too_large(self._max_bytes)
        self._budget.check_json(result)
        self._result = [result]
        self._release()

    def _finishing(self) -> Iterator[int]:
        """Put a large result together; yield after each step what that cost."""
        self._result = yield from assembled(self._top, self._choices, self._max_bytes, self._budget)
        self._release()

    def _process_end(self, clean: bool) -> None:
        choices = self._choices.values()
        finished = all(choice.finish_reason is not None for choice in choices)
        if clean and choices and finished and len(choices) >= self._n:
            self._finish()
        else:
            raise _broken(len(self._choices), self._n, clean=clean, finished=finished)

    def _release(self) -> None:
        self._top = {}
        self._choices = {}


def _index_of(entry: Object, position: int) -> int:
    index = entry.get("index")
    return index if type(index) is int and -EXACT <= index <= EXACT else position


def _not_an_object() -> APIError:
    return upstream_error(
        "The upstream's event stream holds a chunk that is not a JSON object.", ErrorCode.UPSTREAM_MALFORMED
    )


def _broken(count: int, n: int, *, clean: bool, finished: bool) -> APIError:
    """Return the error for a stream that ended with `count` of `n` choices, and without its end."""
    if not clean:
        what = "its connection broke off before [DONE]"
    elif not count:
        what = "no choice and no [DONE] came"
    elif not finished:
        what = "neither [DONE] nor a finish_reason on every choice came"
    else:
        what = f"{count} of {n} choices and no [DONE] came"
    return upstream_error(
        f"The upstream's stream ended without its end: {what}. Try the request again.",
        ErrorCode.UPSTREAM_INCOMPLETE if clean else ErrorCode.UPSTREAM_CUT,
    )
