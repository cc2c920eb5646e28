"""Choices of a chat completion under construction."""

from __future__ import annotations

from collections.abc import Generator

from stream_proxy.aggregate.arguments import Arguments
from stream_proxy.aggregate.budget import ValueBudget
from stream_proxy.aggregate.long_text import LongText
from stream_proxy.aggregate.merge import Object, arguments_in, fill, lengthens, merge_delta, overlay, settled
from stream_proxy.aggregate.pieces import PieceEncoder
from stream_proxy.aggregate.reading.argument_reader import ArgumentReader, Unread
from stream_proxy.aggregate.tool_calls import ToolCalls, finish_calls

#: Padding of streamed chunks against traffic analysis.
PADDING = "obfuscation"
# Members that only streams have. Azure's asynchronous filter says which part of the text it has passed.
_ONLY_STREAMED = frozenset({"content_filter_offsets", "index", PADDING, "token_id"})
# Members of a message that `text` repeats (Together).
_SPOKEN = ("content", "reasoning", "reasoning_content", "refusal", "tool_calls", "function_call", "audio")
# Mistral pads at the top under this name.
_PADDINGS = frozenset({PADDING, "p"})
# Costs of the steps to a result: those of reading arguments, of one call, and of one choice.
_STEP_COST = 40_960
_CALL_COST = 64
_CHOICE_COST = 128
# The order of the non-streaming API.
_KEY_ORDER = ("id", "object", "created", "model", "choices", "usage")


class Choice:
    """One choice under construction."""

    __slots__ = ("_extra", "_logprobs", "_message_is_delta", "_whole", "finish_reason", "message")

    def __init__(self) -> None:
        self.message: Object = {}
        self._message_is_delta: bool | None = None  # known once a `message` has come
        self._whole: Object = {}
        self._logprobs: object = None
        self._extra: Object = {}
        self.finish_reason: object = None

    def add(self, entry: Object) -> None:
        """Merge an entry of a chunk's ``choices``."""
        delta = entry.get("delta")
        if isinstance(delta, dict):
            merge_delta(self.message, delta)
        for key, value in entry.items():
            if key == "finish_reason":
                self.finish_reason = value or self.finish_reason
            elif key == "logprobs":
                if value is not None:
                    self._add_logprobs(value)
            elif key == "message":
                if isinstance(value, dict):
                    self._add_message(value, bool(delta))
            elif key == "text":
                merge_delta(self._extra, {key: value})
            elif key != "delta" and key not in _ONLY_STREAMED:
                _extend(self._extra, key, value)

    def lengthens(self, key: str) -> bool:
        """Report whether merging a delta with just a text under `key` appends it to a text of the message."""
        return lengthens(self.message, {key: "x"})

    def add_text(self, key: str, text: str) -> None:
        """Append to a text of the message."""
        known = self.message.get(key)
        if isinstance(known, LongText):
            known.write(text)
        else:
            merge_delta(self.message, {key: text})

    def arguments_at(self, call: int) -> Arguments | None:
        """Return the arguments that a fragment of the call with this index is appended to."""
        calls = self.message.get("tool_calls")
        return calls.arguments_at(call) if isinstance(calls, ToolCalls) else None

    def usage(self) -> object:
        """Return the usage that came in this choice instead of at the top (Moonshot)."""
        return self._extra.get("usage")

    def completion(self, index: int, seed: str, reader: ArgumentReader) -> Object:
        """Return the entry of the result's ``choices``.

        :param seed: what tells the result apart from others.
        :param reader: reads arguments as what was meant.
        """
        message: Object = settled(self.message, reader)
        fill(message, self._whole)
        extra: Object = settled(self._extra, reader)
        extra.pop("usage", None)
        for key in _ONLY_STREAMED:
            if key != "index" or message.get(key) == index:  # the choice's, once more (Mistral)
                message.pop(key, None)
        spoke = any(message.get(key) for key in _SPOKEN)
        for members in (message, extra):
            if spoke or not members.get("text"):
                members.pop("text", None)
        finish_calls(message, f"{seed} {index}")
        role, content = message.pop("role", None), message.pop("content", None)
        return {
            "index": index,
            "message": {"role": role or "assistant", "content": content, **message},
            "logprobs": self._logprobs,
            "finish_reason": self.finish_reason or _reason(message),
            **extra,
        }

    def _add_message(self, message: Object, beside_delta: bool) -> None:
        """Add a whole message.

        Beside a delta (Perplexity) and after deltas (MiniMax) it is the answer so far. Where no delta has
        anything in it, messages are streamed instead.
        """
        if self._message_is_delta is None:
            spoke = any(value for key, value in self.message.items() if key != "role")
            self._message_is_delta = not beside_delta and not spoke
        if self._message_is_delta and not beside_delta:
            merge_delta(self.message, message)
        else:
            self._whole = message

    def _add_logprobs(self, value: object) -> None:
        if isinstance(self._logprobs, dict) and isinstance(value, dict):
            for key, member in value.items():
                _extend(self._logprobs, key, member)
        elif isinstance(self._logprobs, list) and isinstance(value, list):
            self._logprobs += value
        elif not isinstance(self._logprobs, dict) or isinstance(value, dict):
            self._logprobs = value


def place_usage(top: Object, usages: list[object]) -> None:
    """Move the usage to the top, where whole answers have it, from a choice (Moonshot) or ``x_groq``."""
    groq = top.get("x_groq")
    if isinstance(groq, dict) and isinstance(groq.get("usage"), dict):
        usages = [*usages, groq["usage"]]
        top["x_groq"] = {key: value for key, value in groq.items() if key != "usage"}
        if not top["x_groq"]:
            del top["x_groq"]
    objects = [usage for usage in usages if isinstance(usage, dict)]
    if objects and top.get("usage") is None:
        top["usage"] = {}
        for usage in objects:
            overlay(top["usage"], usage)


def speak_in(entries: list[object]) -> bool:
    """Report whether one of a chunk's ``choices`` holds more than a role and the end."""
    for entry in entries:
        if isinstance(entry, dict):
            delta = entry.get("delta")
            if isinstance(delta, dict):
                for key, value in delta.items():
                    if value and key != "role" and key != PADDING:
                        return True
            if entry.get("text") or entry.get("message"):
                return True
    return False


def reported_in(top: Object, choices: dict[int, Choice]) -> tuple[object, object]:
    """Return the model and the usage of a completion, wherever the latter is."""
    groq = top.get("x_groq")
    usages = [top.get("usage"), *(choice.usage() for choice in choices.values())]
    usages.append(groq.get("usage") if isinstance(groq, dict) else None)
    return top.get("model"), next((usage for usage in usages if isinstance(usage, dict)), None)


def _extend(target: Object, key: str, value: object) -> None:
    """Lay `value` over the member under `key`, but extend an array by an array."""
    old = target.get(key)
    if isinstance(old, list) and isinstance(value, list):
        old += value
    else:
        overlay(target, {key: value})


def _reason(message: Object) -> str:
    """Return the finish_reason of an answer that came to its end without one."""
    if message.get("tool_calls"):
        return "tool_calls"
    return "function_call" if message.get("function_call") else "stop"


def assembled(
    top: Object, choices: dict[int, Choice], max_bytes: int, budget: ValueBudget
) -> Generator[int, None, list[bytes]]:
    """Return a large completion in pieces; yield after each step what it cost."""
    reader = ArgumentReader()
    ordered = sorted(choices.items())
    for _, choice in ordered:
        for arguments in arguments_in(choice.message):
            for _ in reader.steps(arguments):
                yield _STEP_COST
            yield _CALL_COST
    whole = yield from completion_by_steps(top, choices, reader)
    encoder = PieceEncoder()
    pieces = yield from encoder.collect(whole, max_bytes)
    budget.check_values(encoder.values)
    return pieces


def completion_by_steps(
    top: Object, choices: dict[int, Choice], reader: ArgumentReader
) -> Generator[int, None, Object]:
    """Return a completion for a `PieceEncoder`; yield after each choice what it cost."""
    seed = _seed(top)
    made: list[Object] = []
    for index, choice in sorted(choices.items()):
        made.append(choice.completion(index, seed, reader))
        yield _CHOICE_COST
    return _around(top, choices, made)


def size_by_steps(top: Object, choices: dict[int, Choice]) -> Generator[int, None, int]:
    """Return the size of a completion as JSON; yield after each step what it cost."""
    encoder = PieceEncoder()
    size = 0
    for piece in encoder.pieces((yield from completion_by_steps(top, choices, Unread()))):
        size += len(piece)
        yield encoder.cost
    return size


def completion(top: Object, choices: dict[int, Choice], reader: ArgumentReader) -> Object:
    """Return a completion, given its members at the top and its choices by index."""
    seed = _seed(top)
    made = [choice.completion(index, seed, reader) for index, choice in sorted(choices.items())]
    return _around(top, choices, made)


def _seed(top: Object) -> str:
    """Return what tells this result apart from others."""
    return f"{top.get('id')} {top.get('created')}"


def _around(members: Object, choices: dict[int, Choice], made: list[Object]) -> Object:
    """Return the completion, given what was made of its choices."""
    top = {key: value for key, value in members.items() if key not in _PADDINGS}
    top["object"] = "chat.completion"
    top["choices"] = made
    if "x_groq" in top:
        for choice in made:  # Groq labels the deltas of reasoning, but no whole message
            choice["message"].pop("channel", None)
    place_usage(top, [choice.usage() for choice in choices.values()])
    return {key: top.pop(key) for key in _KEY_ORDER if key in top} | top
