"""Session of the Realtime API: client events to their handlers, server events and errors back."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator

from stream_proxy.mock.checks import required
from stream_proxy.mock.messages import Message
from stream_proxy.mock.realtime.conversation import AudioBuffer, Conversation
from stream_proxy.mock.realtime.responses import Responses
from stream_proxy.mock.realtime.settings import initial_settings, updated_settings
from stream_proxy.mock.wire import IdSource, JSONObject, MockError, decode_object, encode, invalid


class RealtimeSession:
    """One session, which handles the messages of a WebSocket. Equal messages get equal responses.

    :param model: the model of the session.
    :param words: the length of a response's text, if given.
    """

    def __init__(self, model: str, words: int | None = None) -> None:
        self._ids = IdSource("realtime", model)
        self._settings = initial_settings(model, self._ids.seed)
        conversation = Conversation(self._ids)
        audio = AudioBuffer(conversation)
        self._responses = Responses(conversation, words)
        self._handlers: dict[str, Callable[[JSONObject], Iterable[JSONObject]]] = {
            "session.update": self._update,
            "conversation.item.create": conversation.create,
            "conversation.item.retrieve": conversation.retrieve,
            "conversation.item.delete": conversation.delete,
            "input_audio_buffer.append": audio.append,
            "input_audio_buffer.commit": audio.commit,
            "input_audio_buffer.clear": audio.clear,
            "response.create": self._create_response,
            "response.cancel": self._responses.cancel,
        }

    def on_open(self) -> Iterator[Message]:
        """Return ``session.created``."""
        return self._messages([{"type": "session.created", "session": self._settings}])

    def on_message(self, message: Message) -> Iterator[Message]:
        """Return the events that respond to one; an ``error`` event for an invalid one."""
        event: JSONObject = {}
        try:
            if message.binary:
                raise MockError(400, "Events are JSON in text messages.", code="invalid_event")
            event = decode_object(io.BytesIO(message.payload))
            kind = required(event, "type", str)
            handler = self._handlers.get(kind)
            if handler is None:
                known = ", ".join(f"'{name}'" for name in self._handlers)
                text = f"Invalid value: '{kind}'. Supported values are: {known}."
                raise invalid("type", text, "invalid_value")
            return self._messages(handler(event))
        except MockError as failure:
            error = {**failure.envelope()["error"], "event_id": event.get("event_id")}
            error["code"] = failure.code or "invalid_event"
            return self._messages([{"type": "error", "error": error}])

    def _messages(self, events: Iterable[JSONObject]) -> Iterator[Message]:
        for event in events:
            yield Message(encode({"event_id": self._ids.next("event"), **event}))

    def _update(self, event: JSONObject) -> Iterable[JSONObject]:
        self._settings = updated_settings(self._settings, required(event, "session", dict))
        return [{"type": "session.updated", "session": self._settings}]

    def _create_response(self, event: JSONObject) -> Iterable[JSONObject]:
        return self._responses.create(event, self._settings)
