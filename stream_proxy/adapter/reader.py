"""Reader of payloads: text, reasoning, tool calls and more, by expressions or by the payload's shape."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.expressions import Expression, ExpressionError
from stream_proxy.adapter.payloads import Payload
from stream_proxy.adapter.shapes import search, signals
from stream_proxy.aggregate.stream_errors import chat_stream_error
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import upstream_error
from stream_proxy.lenient_json import JSON, JSONObject, decode_json, encode_json

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
    """The content of one payload.

    ``done``: it is the last one. ``plain``: it is no JSON, but the text itself. ``may_repeat``: its text may
    be the whole text, which came in pieces before. ``announces_end``: its stream marks its end.
    """

    text: str | None = None
    reasoning: str | None = None
    tool_calls: list[JSON] = field(default_factory=list)
    finish_reason: str | None = None
    usage: JSONObject | None = None
    done: bool = False
    plain: bool = False
    may_repeat: bool = False
    announces_end: bool = False


class Reader:
    """A reader of a service's payloads, without the state of any one stream.

    :raises ExpressionError: an expression cannot be used; the text begins with its key.
    """

    def __init__(self, config: AdapterConfig) -> None:
        self._config = config
        self._skipped = frozenset(config.skip_events)
        self._skipped_data = frozenset(text.strip().encode() for text in config.skip_payloads)
        self._used = None if config.events is None else frozenset((*config.events, *config.end_events))
        self._marker = (config.end_marker or _DONE).strip()
        self._expressions: dict[str, Expression] = {}
        for name in _FIELDS:
            source = getattr(config, name)
            if source is not None:
                try:
                    self._expressions[name] = Expression(source)
                except ExpressionError as error:
                    raise ExpressionError(f"{_camel(name)}: {error}") from None
        #: The configuration names a mark at the end of streams: one without it is broken.
        self.announces_end = bool("done" in self._expressions or config.end_marker or config.end_events)

    @property
    def content(self) -> str:
        """Where text is searched, in words."""
        expression = self._expressions.get("content")
        return "any place that the adapter knows" if expression is None else expression.source

    def is_marker(self, data: bytes) -> bool:
        """Report whether `data` is the mark that ends the stream."""
        return data.strip() == self._marker.encode()

    def read(self, payload: Payload, *, after_text: bool = False) -> Reading | None:
        """Return the content of `payload`, or ``None`` if it is to be skipped.

        :param after_text: the payloads before it were plain text.
        :raises APIError: it reports an error, or is not of the configured kind.
        """
        used = self._used is None or payload.event == "error" or payload.event in self._used
        if not used or payload.event in self._skipped or payload.data.strip() in self._skipped_data:
            return None
        if self.is_marker(payload.data):
            return Reading(done=True)
        if self._config.payload == "text" and payload.event != "error":
            return Reading(payload.data.decode("utf-8", "replace"), done=self._ends(payload))
        if not payload.data.strip():
            # Blanks among plain text are text; elsewhere an empty event only keeps the stream alive.
            is_text = after_text and payload.data and payload.event == "message"
            return Reading(payload.data.decode("utf-8", "replace"), plain=True) if is_text else None
        decoded = self._decode(payload, after_text)
        if decoded is None:
            return None
        value, plain = decoded
        if value == self._marker:  # written as a JSON string
            return Reading(done=True)
        if payload.event == "error":
            raise chat_stream_error(self._error(value) or value)
        error = self._error(value)
        if error is not None:
            raise chat_stream_error(error)
        reading = self._extract(value, plain)
        if "content" not in self._expressions and signals.is_aside(payload.event, value):
            reading.text = None
        reading.announces_end = signals.announces_end(value)
        reading.done = self._ends(payload) or self._is_done(value)
        return reading

    def error_in(self, body: bytes) -> JSON:
        """Return the error, an object or a sentence, in the body of a response with an error status."""
        try:
            value: JSON = decode_json(body)
        except ValueError:
            return None
        error = self._error(value)
        if error is None and isinstance(value, dict):
            error = next((value[key] for key in ("detail", "message", "msg") if value.get(key)), None)
        return error

    def _decode(self, payload: Payload, after_text: bool) -> tuple[JSON, bool] | None:
        """Return a payload's JSON and ``False``, or its text and ``True``.

        ``None``: neither, in an event with a name that the configuration does not mention, such as a ping.
        """
        data, kind = payload.data, self._config.payload
        unknown = self._used is None and payload.event not in ("message", "error")
        try:
            value: JSON = decode_json(data)
        except ValueError:
            begun = _BEGUN_JSON.match(data) is not None
            if unknown and not begun and not self._ends(payload):
                return None
            must_be_json = kind == "json" or "content" in self._expressions or (begun and not after_text)
            if payload.event != "error" and must_be_json:
                raise upstream_error(
                    "The service sent a payload that is no complete JSON; if its payloads are plain text, "
                    'set the adapter\'s payload to "text".',
                    ErrorCode.UPSTREAM_MALFORMED,
                ) from None
            return data.decode("utf-8", "replace"), True
        scalar = not isinstance(value, dict | list | str)  # such as a token that consists of digits
        if unknown and scalar:
            return None
        if kind == "auto" and (scalar or (after_text and not search.is_about_response(value))):
            return data.decode("utf-8", "replace"), True
        return value, False

    def _error(self, value: JSON) -> JSON:
        if "error" not in self._expressions:
            return search.error_of(value)
        found = self._expressions["error"].search(value)
        if _is_no(found):
            return None
        return value if found is True else found

    def _extract(self, value: JSON, plain: bool) -> Reading:
        given = self._expressions
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
        reading.may_repeat = "content" not in given and signals.may_repeat(value)
        usage = self._find("usage", signals.usage_of, value)
        reading.usage = usage if isinstance(usage, dict) else None
        return reading

    def _find(self, name: str, default: Callable[[JSON], JSON], value: JSON) -> JSON:
        return self._expressions[name].search(value) if name in self._expressions else default(value)

    def _ends(self, payload: Payload) -> bool:
        return payload.event in self._config.end_events

    def _is_done(self, value: JSON) -> bool:
        if "done" in self._expressions:
            return not _is_no(self._expressions["done"].search(value))
        # A configured mark replaces the guess by the payload's shape.
        return not self.announces_end and signals.ends(value)


def openai_finish(reason: JSON) -> str | None:
    """Return OpenAI's finish reason for a service's word; ``"stop"`` for a word that is not known."""
    if reason is None or reason is False:
        return None
    word = reason.strip().lower() if isinstance(reason, str) else "stop"
    return None if word in _NO_FINISH else _OPENAI_FINISHES.get(word, "stop")


def _is_no(found: JSON) -> bool:
    return not found or found == "false"


def _text(value: JSON, key: str, expression: Expression) -> str | None:
    """Return a found value as text: a string verbatim, a list joined, a number as JSON writes it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [part for item in value if (part := _text(item, key, expression)) is not None]
        return "".join(parts) if parts else None
    if isinstance(value, dict | bool):
        kind = "an object" if isinstance(value, dict) else "a boolean"
        raise upstream_error(
            f"The adapter's {_camel(key)} expression found {kind}, not a text, in the service's payload: "
            f"{expression.source}",
            ErrorCode.CONTENT_NOT_FOUND,
        )
    return encode_json(value).decode()


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
