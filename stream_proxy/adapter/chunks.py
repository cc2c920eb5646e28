"""Writer of the chunks of an OpenAI chat completion stream.

Their shapes are those of the OpenAI API reference, "Chat completion chunk object".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stream_proxy.adapter.reading import Reading
from stream_proxy.adapter.shapes.usage import openai_usage
from stream_proxy.adapter.texts import GrowingText, ResponseText, in_lengths
from stream_proxy.json_steps import Steps
from stream_proxy.lenient_json import JSON, JSONObject, encode_json, is_integer

# Characters of a delta, at most: a chunk is encoded, sent or merged in a single step.
_DELTA_LENGTH = 2**20


class ChunkWriter:
    """A writer of the chunks of one response.

    :param identity: the completion's ``id``, ``created`` (Unix seconds) and ``model``.
    :param cumulative: readings hold the whole text so far instead of what is new.
    :param include_usage: a last chunk holds the usage, which is ``null`` in those before it.
    :param most_held: hold texts until the end, at most so much, so that a service may still replace them;
        ``None`` to write them as they come.
    """

    def __init__(
        self,
        identity: tuple[str, int, str],
        *,
        cumulative: bool = False,
        include_usage: bool = False,
        most_held: int | None = None,
    ) -> None:
        self._id, self._created, self._model = identity
        self._include_usage = include_usage
        self._cumulative = cumulative
        self._text = ResponseText("text", most_held)
        self._reasoning = ResponseText("reasoning", most_held)
        self._calls = _ToolCalls(cumulative)
        self._finish_reason: str | None = None
        self._usage: JSONObject = {}
        self._begun = False
        #: A payload had a place for text, reasoning or tool calls, if only an empty one.
        self.answered = False

    def add(self, reading: Reading) -> Iterator[JSONObject | None]:
        """Yield the chunks for one payload, and ``None`` between steps of the work on a long one.

        :raises APIError: the service changed text that has been sent.
        """
        if reading.finish_reason is not None:
            self._finish_reason = reading.finish_reason
        if reading.usage is not None:
            self._usage.update({key: count for key, count in reading.usage.items() if count is not None})
        if reading.replacement is not None:
            self.answered = True
            if text := (yield from self._text.replace(reading.replacement)):
                yield from self._deltas("content", [text])
        if reading.only_if_first and self._text.any:
            return
        if reading.text is not None or reading.reasoning is not None or reading.tool_calls:
            self.answered = True
        reasoning = yield from self._new(self._reasoning, reading.reasoning, reading)
        if reasoning:
            yield from self._deltas("reasoning_content", [reasoning])
        text = yield from self._new(self._text, reading.text, reading)
        if text:
            yield from self._deltas("content", [text])
        calls = self._calls.deltas(reading.tool_calls)
        if calls:
            yield from self._delta({"tool_calls": calls})

    def end(self) -> Iterator[JSONObject]:
        """Yield the chunks that end the stream."""
        for held, key in ((self._reasoning, "reasoning_content"), (self._text, "content")):
            yield from self._deltas(key, held.rest())
        if not self._begun:
            yield from self._delta({})
        finish = self._finish_reason
        if self._calls.any:
            finish = "tool_calls" if finish in (None, "stop") else finish
        elif finish in (None, "tool_calls"):  # the calls were of no known kind
            finish = "stop"
        yield self._choice({}, finish)
        usage = openai_usage(self._usage)
        if usage is not None and self._include_usage:
            yield {**self._chunk([]), "usage": usage}

    def _new(self, held: ResponseText, text: str | None, reading: Reading) -> Steps[str]:
        """Return, in steps, what is to be sent for a text."""
        if not text:
            return ""
        if reading.message is not None:
            take = held.whole if reading.whole else held.piece
            return (yield from take(text, reading.message))
        if self._cumulative:
            return (yield from held.whole(text))
        return (yield from held.delta(text, reading.may_repeat, reading.may_grow))

    @property
    def usage(self) -> JSONObject | None:
        """OpenAI's usage, if the service has given a count."""
        return openai_usage(self._usage) if self._usage else None

    @property
    def uncounted(self) -> bool:
        """Whether the service's usage has no known count in it."""
        return bool(self._usage) and openai_usage(self._usage) is None

    @property
    def finish_reason(self) -> str | None:
        """OpenAI's finish reason, once the service has given one."""
        return self._finish_reason

    def _deltas(self, key: str, texts: Iterable[str]) -> Iterator[JSONObject]:
        """Yield the chunks for a text, none of which is long."""
        for text in in_lengths(texts, _DELTA_LENGTH):
            yield from self._delta({key: text})

    def _delta(self, delta: JSONObject) -> Iterator[JSONObject]:
        if not self._begun:
            self._begun = True
            yield self._choice({"role": "assistant", "content": None if "tool_calls" in delta else ""})
        if delta:
            yield self._choice(delta)

    def _choice(self, delta: JSONObject, finish: str | None = None) -> JSONObject:
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])

    def _chunk(self, choices: list[JSON]) -> JSONObject:
        chunk: JSONObject = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }
        if self._include_usage:
            chunk["usage"] = None
        return chunk


class _Call:
    """One tool call, as far as it has come."""

    def __init__(self, index: int, identity: str) -> None:
        self.index = index
        self.identity = identity
        self.named = False
        self.arguments = GrowingText("the arguments of a tool call")


class _ToolCalls:
    """Tool calls of OpenAI's shape: pieces with an ``index``, or whole calls without one.

    Indexes of the chunks count from 0 without a gap, as clients expect, whatever the service's are.
    """

    def __init__(self, cumulative: bool) -> None:
        self._cumulative = cumulative
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}  # by the service's index
        self._by_identity: dict[str, _Call] = {}

    @property
    def any(self) -> bool:
        return bool(self._calls)

    def deltas(self, calls: list[JSON]) -> list[JSON]:
        known = [(position, call) for position, call in enumerate(calls) if isinstance(call, dict)]
        return [delta for position, call in known if (delta := self._delta(position, call)) is not None]

    def _delta(self, position: int, piece: JSONObject) -> JSONObject | None:
        function = piece.get("function")
        if not isinstance(function, dict):
            return None
        name, identity = _word(function.get("name")), _word(piece.get("id"))
        call, new = self._call(position, piece.get("index"), identity, name)
        arguments = function.get("arguments")
        if arguments is None:
            arguments = ""
        elif not isinstance(arguments, str):  # Ollama's are an object
            arguments = encode_json(arguments).decode()
        if self._cumulative:
            arguments = call.arguments.new(arguments)
        changed: JSONObject = {"arguments": arguments}
        if name is not None and not call.named:
            call.named = True
            changed = {"name": name, **changed}
        if new:
            changed = {"name": "", **changed}
            return {"index": call.index, "id": call.identity, "type": "function", "function": changed}
        if not changed["arguments"] and "name" not in changed:
            return None
        return {"index": call.index, "function": changed}

    def _call(self, position: int, index: JSON, identity: str | None, name: str | None) -> tuple[_Call, bool]:
        """Return the call that a piece belongs to, and whether the piece begins it."""
        if not is_integer(index):
            index = position if self._cumulative else None
        known = None if index is None else self._by_index.get(index)
        if known is None and index is None:
            if identity is not None:
                known = self._by_identity.get(identity)
            elif name is None and self._calls:
                known = self._calls[-1]
        # Every parallel call of Gemini and Groq has index 0; a fresh id with a name is another call.
        other = known is not None and None not in (identity, name) and identity != known.identity
        if known is not None and not other:
            return known, False
        call = _Call(len(self._calls), identity or f"call_{len(self._calls)}")
        self._calls.append(call)
        self._by_identity.setdefault(call.identity, call)
        if index is not None:
            self._by_index[index] = call
        return call, True


def _word(value: JSON) -> str | None:
    return value if isinstance(value, str) and value else None
