"""A Realtime-like dialogue: events in, events out. Audio is counted, and answered in writing."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Iterable, Iterator

from stream_proxy.mock.checks import called_functions, missing, optional
from stream_proxy.mock.items import heard, item_text, usage
from stream_proxy.mock.speaker import Said
from stream_proxy.mock.text import sentence, tokens
from stream_proxy.mock.wire import EPOCH, ApiError, JSONObject, decode_object, digest, encode

_KINDS = ("message", "function_call", "function_call_output")
_FIXED = frozenset(("id", "object", "type", "model", "expires_at"))


class Dialogue:
    """One Realtime session. The same events always get the same answers.

    :param model: The model of the session.
    :param words: The length of the answers, if given.
    """

    def __init__(self, model: str, words: int | None = None) -> None:
        self._words = words
        self._seed = digest("realtime", model)
        self._count = 0
        self._items: list[JSONObject] = []
        self._audio = 0
        self._active: str | None = None
        self._cancelled = False
        self._session: JSONObject = {
            "type": "realtime",
            "object": "realtime.session",
            "id": f"sess_{self._seed[:21]}",
            "model": model,
            "output_modalities": ["text"],
            "instructions": "",
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "expires_at": EPOCH + 3600,
            "audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}, "turn_detection": None}},
            "include": None,
        }
        self._handlers: dict[str, Callable[[JSONObject], Iterable[JSONObject]]] = {
            "session.update": self._update,
            "conversation.item.create": self._create,
            "conversation.item.retrieve": self._retrieve,
            "conversation.item.delete": self._delete,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "response.create": self._respond,
            "response.cancel": self._cancel,
        }

    def opened(self) -> Iterator[Said]:
        """``session.created``."""
        return self._said([{"type": "session.created", "session": self._session}])

    def heard(self, message: Said) -> Iterator[Said]:
        """The events that answer one; for what is none, an ``error`` event."""
        event: JSONObject = {}
        try:
            if message.binary:
                raise ApiError(400, "Events are JSON in text messages.", code="invalid_event")
            event = decode_object(io.BytesIO(message.payload))
            kind = optional(event, "type", str)
            if kind is None:
                raise missing("type")
            handler = self._handlers.get(kind)
            if handler is None:
                known = ", ".join(f"'{name}'" for name in self._handlers)
                text = f"Invalid value: '{kind}'. Supported values are: {known}."
                raise ApiError(400, text, param="type", code="invalid_value")
            return self._said(handler(event))
        except ApiError as refused:
            error = {**refused.envelope()["error"], "event_id": event.get("event_id")}
            error["code"] = refused.code or "invalid_event"
            return self._said([{"type": "error", "error": error}])

    def _said(self, events: Iterable[JSONObject]) -> Iterator[Said]:
        for event in events:
            yield Said(encode({"event_id": self._name("event"), **event}))

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{digest(self._seed, self._count)[:21]}"

    # The session and its items

    def _update(self, event: JSONObject) -> Iterable[JSONObject]:
        changes = optional(event, "session", dict)
        if changes is None:
            raise missing("session")
        _check(changes, "session")
        self._session = {
            **self._session,
            **{name: value for name, value in changes.items() if name not in _FIXED},
        }
        return [{"type": "session.updated", "session": self._session}]

    def _create(self, event: JSONObject) -> Iterable[JSONObject]:
        given = optional(event, "item", dict)
        if given is None:
            raise missing("item")
        if given.get("type") not in _KINDS:
            raise ApiError(400, "Invalid value: 'item.type'.", param="item.type", code="invalid_value")
        if given["type"] == "message" and not isinstance(given.get("content"), list):
            raise missing("item.content")
        after = optional(event, "previous_item_id", str)
        place = len(self._items) if after is None else 0 if after == "root" else self._find(event, after) + 1
        item = {"id": self._name("item"), "object": "realtime.item", "status": "completed", **given}
        return self._add(item, place)

    def _add(self, item: JSONObject, place: int) -> Iterable[JSONObject]:
        self._items.insert(place, item)
        about = {"previous_item_id": self._items[place - 1]["id"] if place else None, "item": item}
        # ``created`` is what the API said before ``added`` and ``done`` took its place; clients know either.
        return [{"type": f"conversation.item.{what}", **about} for what in ("created", "added", "done")]

    def _retrieve(self, event: JSONObject) -> Iterable[JSONObject]:
        item = self._items[self._find(event, event.get("item_id"))]
        return [{"type": "conversation.item.retrieved", "item": item}]

    def _delete(self, event: JSONObject) -> Iterable[JSONObject]:
        item = self._items.pop(self._find(event, event.get("item_id")))
        return [{"type": "conversation.item.deleted", "item_id": item["id"]}]

    def _find(self, event: JSONObject, name: object) -> int:
        for place, item in enumerate(self._items):
            if item["id"] == name:
                return place
        param = "previous_item_id" if event["type"] == "conversation.item.create" else "item_id"
        raise ApiError(400, f"Item with {param} '{name}' not found.", param=param, code="item_not_found")

    # Audio

    def _append(self, event: JSONObject) -> Iterable[JSONObject]:
        audio = optional(event, "audio", str)
        if audio is None:
            raise missing("audio")
        try:
            self._audio += len(base64.b64decode(audio, validate=True))
        except binascii.Error:
            raise ApiError(
                400, "Invalid 'audio': expected base64.", param="audio", code="invalid_value"
            ) from None
        return []  # as the API: only the commit is confirmed

    def _commit(self, event: JSONObject) -> Iterable[JSONObject]:
        if not self._audio:
            raise ApiError(400, "The input audio buffer is empty.", code="input_audio_buffer_commit_empty")
        heard, self._audio = self._audio, 0
        item = {
            "id": self._name("item"),
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": f"({heard} bytes of audio)"}],
        }
        added = self._add(item, len(self._items))
        before = self._items[-2]["id"] if len(self._items) > 1 else None
        return [
            {"type": "input_audio_buffer.committed", "item_id": item["id"], "previous_item_id": before},
            *added,
        ]

    def _clear(self, event: JSONObject) -> Iterable[JSONObject]:
        self._audio = 0
        return [{"type": "input_audio_buffer.cleared"}]

    # Responses

    def _respond(self, event: JSONObject) -> Iterable[JSONObject]:
        options = optional(event, "response", dict) or {}
        _check(options, "response")
        if self._active is not None:
            raise ApiError(
                400,
                f"Conversation already has an active response in progress: {self._active}.",
                code="conversation_already_has_active_response",
            )
        settings = {**self._session, **options}
        given = optional(options, "input", list)
        items = self._items if given is None else [item for item in given if isinstance(item, dict)]
        said = heard(items)
        text = sentence(self._session["model"], said, self._words)
        calls = [] if said.from_tool else called_functions(settings, text)
        self._active, self._cancelled = self._name("resp"), False
        prompt = sum(3 + len(tokens(item_text(item))) for item in items)
        return self._stream(self._active, settings, prompt, calls, text)

    def _cancel(self, event: JSONObject) -> Iterable[JSONObject]:
        if self._active is None:
            raise ApiError(
                400, "Cancellation failed: no active response found.", code="response_cancel_not_active"
            )
        self._cancelled = True
        return []

    def _stream(
        self, name: str, settings: JSONObject, prompt: int, calls: list[tuple[str, str]], text: str
    ) -> Iterator[JSONObject]:
        aside = settings.get("conversation") == "none"
        whole: JSONObject = {
            "object": "realtime.response",
            "id": name,
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "conversation_id": None if aside else f"conv_{self._seed[21:42]}",
            "output_modalities": ["text"],
            "max_output_tokens": settings["max_output_tokens"],
            "usage": None,
            "metadata": settings.get("metadata"),
        }
        yield {"type": "response.created", "response": whole}
        budget = settings["max_output_tokens"]
        left = budget if isinstance(budget, int) else None
        output, spent, cut = [], 0, False
        for index, (function, said) in enumerate(calls or [(None, text)]):
            pieces = tokens(said)[:left]
            cut = pieces != tokens(said)
            item: JSONObject = {"id": self._name("item"), "object": "realtime.item"}
            if function is None:
                item.update(type="message", role="assistant", content=[])
            else:
                item.update(type="function_call", name=function, call_id=self._name("call"), arguments="")
            item["status"] = "in_progress"
            place = {"response_id": name, "output_index": index}
            yield {"type": "response.output_item.added", **place, "item": item}
            before = self._items[-1]["id"] if self._items else None
            if not aside:
                yield {"type": "conversation.item.added", "previous_item_id": before, "item": item}
            where = {**place, "item_id": item["id"]}
            taken: list[str] = []
            yield from self._pieces(where, function, pieces, taken)
            said = "".join(taken)
            if function is None:
                item = {**item, "content": [{"type": "output_text", "text": said}]}
            else:
                item = {**item, "arguments": said}
            item["status"] = "incomplete" if cut or self._cancelled else "completed"
            yield {"type": "response.output_item.done", **place, "item": item}
            if not aside:
                self._items.append(item)
                yield {"type": "conversation.item.done", "previous_item_id": before, "item": item}
            output.append(item)
            spent += len(taken)
            left = None if left is None else left - len(taken)
            if cut or self._cancelled:
                break
        status, reason = "completed", None
        if self._cancelled:
            status, reason = "cancelled", "client_cancelled"
        elif cut:
            status, reason = "incomplete", "max_output_tokens"
        self._active = None
        details = {"type": status, "reason": reason} if reason else None
        ended = {
            "status": status,
            "status_details": details,
            "output": output,
            "usage": usage(prompt, spent),
        }
        yield {"type": "response.done", "response": {**whole, **ended}}

    def _pieces(
        self, where: JSONObject, function: str | None, pieces: list[str], taken: list[str]
    ) -> Iterator[JSONObject]:
        """The events of one item's text or arguments; `taken` gets what went out before a cancel."""
        kind = "response.function_call_arguments" if function is not None else "response.output_text"
        whole = "arguments" if function is not None else "text"
        if function is None:
            where = {**where, "content_index": 0}
            yield {"type": "response.content_part.added", **where, "part": {"type": "text", "text": ""}}
        for piece in pieces:
            if self._cancelled:
                break
            taken.append(piece)
            yield {"type": f"{kind}.delta", **where, "delta": piece}
        text = "".join(taken)
        named = {} if function is None else {"name": function}
        yield {"type": f"{kind}.done", **where, **named, whole: text}
        if function is None:
            yield {"type": "response.content_part.done", **where, "part": {"type": "text", "text": text}}


def _check(settings: JSONObject, where: str) -> None:
    for name, kind in (("instructions", str), ("tools", list), ("output_modalities", list)):
        if settings.get(name) is not None and not isinstance(settings[name], kind):
            param = f"{where}.{name}"
            raise ApiError(400, f"Invalid type for '{param}'.", param=param, code="invalid_type")
    if settings.get("output_modalities") not in (None, ["text"]):
        raise ApiError(
            400,
            "This is a mock without a voice: it can only say ['text'].",
            param=f"{where}.output_modalities",
            code="invalid_value",
        )
    limit = settings.get("max_output_tokens", "inf")
    if limit != "inf" and (type(limit) is not int or limit < 1):
        param = f"{where}.max_output_tokens"
        raise ApiError(400, f"Invalid value for '{param}'.", param=param, code="invalid_value")
