"""What a service says, as the chunks of an OpenAI chat completion stream.

Shapes are those of the OpenAI API reference, "Chat completion chunk object".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stream_proxy.adapter.reader import Reading
from stream_proxy.adapter.usage import openai_usage
from stream_proxy.errors import upstream_error
from stream_proxy.jsontext import encode_json

_Chunk = dict[str, Any]
# A text that is cut inside a character ends with this until the rest of the character has come.
_REPLACEMENT = "\ufffd"


class ChunkWriter:
    """Writes the chunks of one answer.

    :param identity: the completion's ``id``, ``created`` (Unix seconds) and ``model``.
    :param cumulative: readings hold the whole text so far instead of what is new.
    :param include_usage: the usage goes into a chunk of its own at the end, and is ``null`` before it.
    """

    def __init__(
        self, identity: tuple[str, int, str], *, cumulative: bool = False, include_usage: bool = False
    ) -> None:
        self._id, self._created, self._model = identity
        self._include_usage = include_usage
        self._text: _Cumulated | None = _Cumulated("text") if cumulative else None
        self._reasoning: _Cumulated | None = _Cumulated("reasoning") if cumulative else None
        self._calls = _ToolCalls(cumulative)
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._begun = False
        #: Something of an answer was in what was read, if only an empty text.
        self.answered = False

    def add(self, reading: Reading) -> Iterator[_Chunk]:
        """The chunks for what one payload says.

        :raises APIError: a cumulative text does not begin with what was sent of it already.
        """
        if reading.text is not None or reading.reasoning is not None or reading.tool_calls:
            self.answered = True
        if reading.finish_reason is not None:
            self._finish_reason = reading.finish_reason
        if reading.usage is not None:
            self._usage.update({key: count for key, count in reading.usage.items() if count is not None})
        reasoning = _new(self._reasoning, reading.reasoning)
        if reasoning:
            yield from self._delta({"reasoning_content": reasoning})
        text = _new(self._text, reading.text)
        if text:
            yield from self._delta({"content": text})
        calls = self._calls.deltas(reading.tool_calls)
        if calls:
            yield from self._delta({"tool_calls": calls})

    def end(self) -> Iterator[_Chunk]:
        """The chunks that end the answer."""
        for held, key in ((self._reasoning, "reasoning_content"), (self._text, "content")):
            if held is not None and (rest := held.rest()):
                yield from self._delta({key: rest})
        if not self._begun:
            yield from self._delta({})
        finish = self._finish_reason
        if self._calls.any:
            finish = "tool_calls" if finish in (None, "stop") else finish
        elif finish in (None, "tool_calls"):  # calls of a kind that cannot be told are none
            finish = "stop"
        yield self._choice({}, finish)
        usage = openai_usage(self._usage)
        if usage is not None and self._include_usage:
            yield {**self._chunk([]), "usage": usage}

    @property
    def finish_reason(self) -> str | None:
        """Why the service says that the answer ended, as far as it has said so."""
        return self._finish_reason

    def _delta(self, delta: _Chunk) -> Iterator[_Chunk]:
        if not self._begun:
            self._begun = True
            yield self._choice({"role": "assistant", "content": None if "tool_calls" in delta else ""})
        if delta:
            yield self._choice(delta)

    def _choice(self, delta: _Chunk, finish: str | None = None) -> _Chunk:
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])

    def _chunk(self, choices: list[_Chunk]) -> _Chunk:
        chunk = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }
        if self._include_usage:
            chunk["usage"] = None
        return chunk


class _Cumulated:
    """A text of which each reading holds all, and of which only the new part is to go out."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._sent = ""
        self._held = ""

    def new(self, text: str) -> str:
        whole = text.rstrip(_REPLACEMENT)
        if not whole.startswith(self._sent):
            if self._sent.startswith(text):  # a last payload without the text, or with less of it
                return ""
            raise upstream_error(
                f"The service changed {self._name} that it had sent already; in cumulative mode each payload "
                "must begin with the one before. Set the adapter's mode to delta if it sends only new text."
            )
        added, self._sent = whole[len(self._sent) :], whole
        self._held = text[len(whole) :]
        return added

    def rest(self) -> str:
        held, self._held = self._held, ""
        return held


def _new(cumulated: _Cumulated | None, text: str | None) -> str:
    if not text:
        return ""
    return text if cumulated is None else cumulated.new(text)


class _ToolCalls:
    """Tool calls of OpenAI's shape: pieces with an ``index``, or whole calls without one."""

    def __init__(self, cumulative: bool) -> None:
        self._cumulative = cumulative
        # By the service's own index; those of the chunks count from 0 without a gap, as clients expect.
        self._arguments: dict[int, _Cumulated] = {}
        self._indexes: dict[int, int] = {}

    @property
    def any(self) -> bool:
        return bool(self._arguments)

    def deltas(self, calls: list[Any]) -> list[_Chunk]:
        known = [(position, call) for position, call in enumerate(calls) if isinstance(call, dict)]
        return [delta for position, call in known if (delta := self._delta(position, call)) is not None]

    def _delta(self, position: int, call: _Chunk) -> _Chunk | None:
        function = call.get("function")
        if not isinstance(function, dict):
            return None
        own = call.get("index")
        if type(own) is not int or own < 0:
            own = position if self._cumulative else max(self._arguments, default=-1) + 1
        arguments = function.get("arguments")
        if arguments is None:
            arguments = ""
        elif not isinstance(arguments, str):  # Ollama's are an object
            arguments = encode_json(arguments).decode()
        if own in self._arguments:
            told = _new(self._arguments[own] if self._cumulative else None, arguments)
            return {"index": self._indexes[own], "function": {"arguments": told}} if told else None
        index = self._indexes[own] = len(self._indexes)
        begun = self._arguments[own] = _Cumulated("the arguments of a tool call")
        identity, name = call.get("id"), function.get("name")
        return {
            "index": index,
            "id": identity if isinstance(identity, str) and identity else f"call_{index}",
            "type": "function",
            "function": {
                "name": name if isinstance(name, str) else "",
                "arguments": _new(begun if self._cumulative else None, arguments),
            },
        }
