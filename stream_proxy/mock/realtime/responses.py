"""The responses of a Realtime session, one at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

from stream_proxy.mock.checks import called_functions, optional
from stream_proxy.mock.realtime.conversation import Conversation, item_text, last_prompt
from stream_proxy.mock.realtime.settings import check_settings
from stream_proxy.mock.text import tokens
from stream_proxy.mock.wire import JSONObject, MockError


class Responses:
    """The response in progress, if there is one.

    :param words: the length of a text, if given.
    """

    def __init__(self, conversation: Conversation, words: int | None) -> None:
        self._conversation = conversation
        self._words = words
        self._active: _Response | None = None

    def create(self, event: JSONObject, session: JSONObject) -> Iterator[JSONObject]:
        """Handle ``response.create`` under the settings of `session`."""
        options = optional(event, "response", dict) or {}
        check_settings(options, "response")
        if self._active is not None:
            message = f"Conversation already has an active response in progress: {self._active.id}."
            raise MockError(400, message, code="conversation_already_has_active_response")
        settings = {**session, **options}
        given = optional(options, "input", list)
        items = self._conversation.items if given is None else given
        items = [item for item in items if isinstance(item, dict)]
        prompt = last_prompt(items)
        text = prompt.response(session["model"], self._words)
        calls = [] if prompt.from_tool else called_functions(settings, text)
        input_tokens = sum(3 + len(tokens(item_text(item))) for item in items)
        self._active = _Response(self._conversation, settings, input_tokens)
        return self._stream(self._active, calls or [(None, text)])

    def cancel(self, event: JSONObject) -> Iterable[JSONObject]:
        """Handle ``response.cancel``: the response itself confirms it by its end."""
        if self._active is None:
            message = "Cancellation failed: no active response found."
            raise MockError(400, message, code="response_cancel_not_active")
        self._active.cancelled = True
        return []

    def _stream(self, response: _Response, outputs: Iterable[tuple[str | None, str]]) -> Iterator[JSONObject]:
        yield from response.events(outputs)
        self._active = None
        yield response.done()


class _Response:
    """A response whose events are made while they are sent, so that it can be cancelled between two."""

    def __init__(self, conversation: Conversation, settings: JSONObject, input_tokens: int) -> None:
        self._conversation = conversation
        self._ids = ids = conversation.ids
        self._input_tokens = input_tokens
        self._output: list[JSONObject] = []
        self._output_tokens = 0
        limit = settings["max_output_tokens"]
        self._limit = limit if isinstance(limit, int) else None
        self._truncated = False
        self._out_of_band = settings.get("conversation") == "none"
        self.cancelled = False
        self.id = ids.next("resp")
        self._object: JSONObject = {
            "object": "realtime.response",
            "id": self.id,
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "conversation_id": None if self._out_of_band else f"conv_{ids.seed[21:42]}",
            "output_modalities": ["text"],
            "max_output_tokens": limit,
            "usage": None,
            "metadata": settings.get("metadata"),
        }

    def events(self, outputs: Iterable[tuple[str | None, str]]) -> Iterator[JSONObject]:
        """Yield the events up to ``response.done``.

        :param outputs: a function's name and arguments, or ``None`` and a text, for each item.
        """
        yield {"type": "response.created", "response": self._object}
        for index, (function, text) in enumerate(outputs):
            yield from self._item_events({"response_id": self.id, "output_index": index}, function, text)
            if self._truncated or self.cancelled:
                break

    def done(self) -> JSONObject:
        """Return ``response.done``."""
        status, reason = "completed", None
        if self.cancelled:
            status, reason = "cancelled", "client_cancelled"
        elif self._truncated:
            status, reason = "incomplete", "max_output_tokens"
        final = {
            "status": status,
            "status_details": {"type": status, "reason": reason} if reason else None,
            "output": self._output,
            "usage": _usage(self._input_tokens, self._output_tokens),
        }
        return {"type": "response.done", "response": {**self._object, **final}}

    def _item_events(self, place: JSONObject, function: str | None, text: str) -> Iterator[JSONObject]:
        item: JSONObject = {"id": self._ids.next("item"), "object": "realtime.item"}
        if function is None:
            item.update(type="message", role="assistant", content=[])
        else:
            item.update(type="function_call", name=function, call_id=self._ids.next("call"), arguments="")
        item["status"] = "in_progress"
        yield {"type": "response.output_item.added", **place, "item": item}
        previous = {"previous_item_id": self._conversation.last_id}
        if not self._out_of_band:
            yield {"type": "conversation.item.added", **previous, "item": item}
        where = {**place, "item_id": item["id"]}
        if function is None:
            text = yield from self._content_events(where, text)
            item = {**item, "content": [{"type": "output_text", "text": text}]}
        else:
            text = yield from self._arguments_events(where, function, text)
            item = {**item, "arguments": text}
        item["status"] = "incomplete" if self._truncated or self.cancelled else "completed"
        yield {"type": "response.output_item.done", **place, "item": item}
        if not self._out_of_band:
            self._conversation.items.append(item)
            yield {"type": "conversation.item.done", **previous, "item": item}
        self._output.append(item)

    def _content_events(self, place: JSONObject, text: str) -> Generator[JSONObject, None, str]:
        place = {**place, "content_index": 0}
        yield {"type": "response.content_part.added", **place, "part": {"type": "text", "text": ""}}
        text = yield from self._deltas("response.output_text.delta", place, text)
        yield {"type": "response.output_text.done", **place, "text": text}
        yield {"type": "response.content_part.done", **place, "part": {"type": "text", "text": text}}
        return text

    def _arguments_events(
        self, place: JSONObject, function: str, arguments: str
    ) -> Generator[JSONObject, None, str]:
        kind = "response.function_call_arguments"
        arguments = yield from self._deltas(f"{kind}.delta", place, arguments)
        yield {"type": f"{kind}.done", **place, "name": function, "arguments": arguments}
        return arguments

    def _deltas(self, kind: str, place: JSONObject, text: str) -> Generator[JSONObject, None, str]:
        """Yield `text` in deltas; return the part of it that the token limit and a cancel allowed."""
        left = None if self._limit is None else self._limit - self._output_tokens
        pieces = tokens(text)
        self._truncated = left is not None and len(pieces) > left
        sent = []
        for piece in pieces[:left]:
            if self.cancelled:
                break
            sent.append(piece)
            yield {"type": kind, **place, "delta": piece}
        self._output_tokens += len(sent)
        return "".join(sent)


def _usage(input_tokens: int, output_tokens: int) -> JSONObject:
    return {
        "total_tokens": input_tokens + output_tokens,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "input_token_details": {
            "text_tokens": input_tokens,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": 0,
            "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": output_tokens, "audio_tokens": 0},
    }
