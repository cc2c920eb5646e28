"""Payloads in, what they say of the answer out: by expressions, or by the shape they have."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.expressions import Expression, ExpressionError
from stream_proxy.adapter.payloads import Payload
from stream_proxy.adapter.shapes import search, signals
from stream_proxy.aggregate.stream_errors import chat_stream_error
from stream_proxy.errors import upstream_error
from stream_proxy.lenient_json import decode_json, encode_json

_FIELDS = ("content", "reasoning", "tool_calls", "finish_reason", "usage", "error", "done")
_DONE = "[DONE]"
_BEGUN_JSON = re.compile(rb"\s*(\{\s*[\"}]|\[\s*[\[{\"])")
_FINISHES = {
    "length": (
        "length",
        "max_length",
        "max_output_tokens",
        "max_tokens",
        "model_context_window_exceeded",
        "model_length",
        "token_limit",
    ),
    "tool_calls": ("tool_calls", "tool_use", "function_call", "tool_call"),
    "content_filter": (
        "blocklist",
        "content_filter",
        "prohibited_content",
        "recitation",
        "refusal",
        "safety",
        "sensitive",
        "spii",
    ),
}
_OPENAI_FINISHES = {name: finish for finish, names in _FINISHES.items() for name in names}
_NO_FINISH = ("", "null", "none", "finish_reason_unspecified")


@dataclass(slots=True)
class Reading:
    """What one payload says.

    ``done``: it is the last one. ``plain``: it was no JSON, and taken for the text itself. ``whole``: its
    text may be all of the text, which came in pieces before. ``announces_end``: its stream says when it ends.
    """

    text: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] = field(default_factory=list)
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    done: bool = False
    plain: bool = False
    whole: bool = False
    announces_end: bool = False


class Reader:
    """How a service's payloads are read. It holds no state of a stream.

    :raises ExpressionError: the text begins with the name of the key whose expression cannot be used.
    """

    def __init__(self, config: AdapterConfig) -> None:
        self._config = config
        self._skipped = frozenset(config.skip_events)
        self._skipped_data = frozenset(text.strip().encode() for text in config.skip_payloads)
        self._used = None if config.events is None else frozenset((*config.events, *config.end_events))
        self._marker = (config.end_marker or _DONE).strip()
        self._given: dict[str, Expression] = {}
        for name in _FIELDS:
            source = getattr(config, name)
            if source is not None:
                try:
                    self._given[name] = Expression(source)
                except ExpressionError as error:
                    raise ExpressionError(f"{_camel(name)}: {error}") from None
        #: The service says itself where its stream ends: an end without that is a broken stream.
        self.announces_end = bool("done" in self._given or config.end_marker or config.end_events)

    @property
    def content(self) -> str:
        """Where the text is looked for, in words."""
        given = self._given.get("content")
        return "any place that the adapter knows" if given is None else given.source

    def is_marker(self, data: bytes) -> bool:
        """Whether `data` is what ends the stream."""
        return data.strip() == self._marker.encode()

    def read(self, payload: Payload, *, after_text: bool = False) -> Reading | None:
        """What `payload` says; ``None`` if it is to be skipped.

        :param after_text: the payloads before it were plain text.
        :raises APIError: it reports an error, or is not what the configuration says.
        """
        if payload.event in self._skipped:
            return None
        if payload.data.strip() in self._skipped_data:
            return None
        if payload.event != "error" and self._used is not None and payload.event not in self._used:
            return None
        if self.is_marker(payload.data):
            return Reading(done=True)
        if self._config.payload == "text" and payload.event != "error":
            return Reading(payload.data.decode("utf-8", "replace"), done=self._ends(payload))
        if not payload.data.strip():
            meant = after_text and payload.data and payload.event == "message"
            return Reading(payload.data.decode("utf-8", "replace"), plain=True) if meant else None
        decoded = self._value(payload, after_text)
        if decoded is None:
            return None
        value, plain = decoded
        if value == self._marker:  # as a JSON string
            return Reading(done=True)
        if payload.event == "error":
            raise chat_stream_error(self._error(value) or value)
        error = self._error(value)
        if error is not None:
            raise chat_stream_error(error)
        reading = self._reading(value, plain)
        if "content" not in self._given and signals.is_aside(payload.event, value):
            reading.text = None
        reading.announces_end = signals.announces_end(value)
        reading.done = self._ends(payload) or self._is_done(value)
        return reading

    def failure(self, body: bytes) -> object:
        """The error that the body of a refusal holds: an object, or a sentence; ``None`` if it holds none."""
        try:
            value = decode_json(body)
        except ValueError:
            return None
        error = self._error(value)
        if error is None and isinstance(value, dict):
            error = next((value[key] for key in ("detail", "message", "msg") if value.get(key)), None)
        return error

    def _value(self, payload: Payload, after_text: bool) -> tuple[Any, bool] | None:
        """The payload's JSON; or its text, and that it is no JSON.

        ``None``: it is an event of a name that the configuration does not know, and nothing that can be read.
        """
        data, kind = payload.data, self._config.payload
        unknown = self._used is None and payload.event not in ("message", "error")
        try:
            value = decode_json(data)
        except ValueError:
            begun = _BEGUN_JSON.match(data) is not None
            if unknown and not begun and not self._ends(payload):
                return None
            given = kind == "json" or "content" in self._given
            if payload.event != "error" and (given or (begun and not after_text)):
                raise upstream_error(
                    "The service sent a payload that is no complete JSON; if its payloads are plain text, "
                    'set the adapter\'s payload to "text".'
                ) from None
            return data.decode("utf-8", "replace"), True
        if unknown and not isinstance(value, dict | list | str):
            return None
        if kind == "auto" and not isinstance(value, dict | list | str):
            return data.decode("utf-8", "replace"), True  # a text can be made of digits
        if kind == "auto" and after_text and not search.is_about_response(value):
            return data.decode("utf-8", "replace"), True
        return value, False

    def _error(self, value: Any) -> object:
        if "error" not in self._given:
            return search.error_of(value)
        found = self._given["error"].search(value)
        if _says_no(found):
            return None
        return value if found is True else found

    def _reading(self, value: Any, plain: bool) -> Reading:
        given = self._given
        reading = Reading(plain=plain)
        if not ({"content", "reasoning", "tool_calls"} <= given.keys()):
            found = search.extract(value)
            reading.text, reading.reasoning = found.text, found.reasoning
            reading.tool_calls = found.tool_calls or []
        if "content" in given:
            reading.text = _text(given["content"].search(value), "content", given["content"])
        if "reasoning" in given:
            reading.reasoning = _text(given["reasoning"].search(value), "reasoning", given["reasoning"])
        if "tool_calls" in given:
            calls = given["tool_calls"].search(value)
            reading.tool_calls = calls if isinstance(calls, list) else [calls] if calls else []
        finish = self._find("finish_reason", signals.finish_of, value)
        if isinstance(finish, str) and finish.lower() == "error":
            raise upstream_error("The service ended its answer with an error, and did not say which.")
        reading.finish_reason = openai_finish(finish)
        reading.whole = "content" not in given and signals.may_repeat(value)
        usage = self._find("usage", signals.usage_of, value)
        reading.usage = usage if isinstance(usage, dict) else None
        return reading

    def _find(self, name: str, default: Any, value: Any) -> Any:
        return self._given[name].search(value) if name in self._given else default(value)

    def _ends(self, payload: Payload) -> bool:
        return payload.event in self._config.end_events

    def _is_done(self, value: Any) -> bool:
        if "done" in self._given:
            return not _says_no(self._given["done"].search(value))
        # Where the configuration names another end, the shapes' guess does not count.
        return not self.announces_end and signals.ends(value)


def openai_finish(reason: object) -> str | None:
    """A service's word for why an answer ended, as OpenAI's; what is not known is ``"stop"``."""
    if reason is None or reason is False:
        return None
    word = reason.strip().lower() if isinstance(reason, str) else "stop"
    return None if word in _NO_FINISH else _OPENAI_FINISHES.get(word, "stop")


def _says_no(found: object) -> bool:
    return not found or found == "false"


def _text(value: Any, key: str, expression: Expression) -> str | None:
    """A found value as text: strings as they are, lists joined, numbers as JSON writes them."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [part for item in value if (part := _text(item, key, expression)) is not None]
        return "".join(parts) if parts else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return encode_json(value).decode()
    kind = "an object" if isinstance(value, dict) else "a boolean"
    raise upstream_error(
        f"The adapter's {_camel(key)} expression found {kind}, not a text, in the service's payload: "
        f"{expression.source}"
    )


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
