"""The conversation of a Realtime session: its items and the audio buffer that becomes one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from stream_proxy.mock.checks import optional, required
from stream_proxy.mock.text import Prompt, content_text
from stream_proxy.mock.wire import IdSource, JSONObject, MockError, invalid, missing

_ITEM_TYPES = ("message", "function_call", "function_call_output")


class Conversation:
    """The items of a session in their order."""

    def __init__(self, ids: IdSource) -> None:
        self.ids = ids
        self.items: list[JSONObject] = []

    @property
    def last_id(self) -> str | None:
        """The id of the last item; ``None`` while there is none."""
        return self.items[-1]["id"] if self.items else None

    def create(self, event: JSONObject) -> Iterable[JSONObject]:
        """Handle ``conversation.item.create``."""
        given = required(event, "item", dict)
        if given.get("type") not in _ITEM_TYPES:
            raise invalid("item.type", "Invalid value: 'item.type'.", "invalid_value")
        if given["type"] == "message" and not isinstance(given.get("content"), list):
            raise missing("item.content")
        after = optional(event, "previous_item_id", str)
        if after is None:
            position = len(self.items)
        else:
            position = 0 if after == "root" else self._find(after, "previous_item_id") + 1
        item = {"id": self.ids.next("item"), "object": "realtime.item", "status": "completed", **given}
        return self._insert(item, position)

    def append(self, item: JSONObject) -> Iterable[JSONObject]:
        """Add `item` at the end, and return the events that announce it."""
        return self._insert(item, len(self.items))

    def retrieve(self, event: JSONObject) -> Iterable[JSONObject]:
        """Handle ``conversation.item.retrieve``."""
        item = self.items[self._find(event.get("item_id"), "item_id")]
        return [{"type": "conversation.item.retrieved", "item": item}]

    def delete(self, event: JSONObject) -> Iterable[JSONObject]:
        """Handle ``conversation.item.delete``."""
        item = self.items.pop(self._find(event.get("item_id"), "item_id"))
        return [{"type": "conversation.item.deleted", "item_id": item["id"]}]

    def _insert(self, item: JSONObject, position: int) -> Iterable[JSONObject]:
        self.items.insert(position, item)
        previous = self.items[position - 1]["id"] if position else None
        # The beta API sent ``created``, which ``added`` and ``done`` replaced; clients may expect either.
        return [
            {"type": f"conversation.item.{step}", "previous_item_id": previous, "item": item}
            for step in ("created", "added", "done")
        ]

    def _find(self, id: object, param: str) -> int:
        for position, item in enumerate(self.items):
            if item["id"] == id:
                return position
        raise invalid(param, f"Item with {param} '{id}' not found.", "item_not_found")


class AudioBuffer:
    """The input audio buffer. Audio is only counted; a commit adds an item that states its size."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._size = 0

    def append(self, event: JSONObject) -> Iterable[JSONObject]:
        """Handle ``input_audio_buffer.append``, which the real API does not confirm either."""
        audio = required(event, "audio", str)
        try:
            self._size += len(base64.b64decode(audio, validate=True))
        except binascii.Error:
            raise invalid("audio", "Invalid 'audio': expected base64.", "invalid_value") from None
        return []

    def commit(self, event: JSONObject) -> Iterable[JSONObject]:
        """Handle ``input_audio_buffer.commit``."""
        if not self._size:
            raise MockError(400, "The input audio buffer is empty.", code="input_audio_buffer_commit_empty")
        item = {
            "id": self._conversation.ids.next("item"),
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": f"({self._size} bytes of audio)"}],
        }
        self._size = 0
        previous = self._conversation.last_id
        committed = {"type": "input_audio_buffer.committed", "item_id": item["id"]}
        return [{**committed, "previous_item_id": previous}, *self._conversation.append(item)]

    def clear(self, event: JSONObject) -> Iterable[JSONObject]:
        """Handle ``input_audio_buffer.clear``."""
        self._size = 0
        return [{"type": "input_audio_buffer.cleared"}]


def item_text(item: JSONObject) -> str:
    """Return the text of an item: of its parts, the transcript of its audio, a call's arguments or result."""
    content = item.get("content")
    if isinstance(content, list):
        parts = (
            part if part.get("text") is not None else {"text": part.get("transcript")}
            for part in content
            if isinstance(part, dict)
        )
        return content_text(list(parts))
    return str(item.get("output", item.get("arguments", "")))


def last_prompt(items: list[JSONObject]) -> Prompt:
    """Return the prompt that the next response is for."""
    if items and items[-1].get("type") == "function_call_output":
        return Prompt(item_text(items[-1]), from_tool=True)
    return Prompt(next((item_text(item) for item in reversed(items) if item.get("role") == "user"), ""))
