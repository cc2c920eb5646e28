"""Reader of payloads: text, reasoning, tool calls and more, by expressions or by the payload's shape."""

from __future__ import annotations

import re

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.payloads import Payload
from stream_proxy.adapter.reading import Progress, Reading, Selection, is_no
from stream_proxy.adapter.shapes import search, signals
from stream_proxy.adapter.shapes.extracted import Extracted
from stream_proxy.adapter.shapes.fields import is_crowded, with_message
from stream_proxy.adapter.shapes.finishes import openai_finish
from stream_proxy.adapter.shapes.kinds import UNNAMED, Kind, kind_of_event, kind_of_payload
from stream_proxy.aggregate.budget import LIGHT_BYTES
from stream_proxy.aggregate.stream_errors import chat_stream_error
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import upstream_error
from stream_proxy.json_steps import LONG_BYTES, Steps, decode_steps, done
from stream_proxy.lenient_json import JSON, decode_json

_DONE = "[DONE]"
_BEGUN_JSON = re.compile(rb"\s*(\{\s*[\"}]|\[\s*[\[{\"])")
# Kinds whose payloads say nothing about how the response ends.
_ASIDE = (Kind.STEP, Kind.UNKNOWN)


class Reader:
    """A reader of a service's payloads, without the state of any one stream.

    :raises ExpressionError: an expression cannot be used; the text begins with its key.
    """

    def __init__(self, config: AdapterConfig) -> None:
        self._config = config
        self._skipped = frozenset(config.skip_events)
        self._skipped_data = frozenset(text.strip().encode() for text in config.skip_payloads)
        self._events = frozenset(config.events or ())
        self._used = None if config.events is None else self._events | set(config.end_events)
        self._marker = (config.end_marker or _DONE).strip()
        self._given = Selection(config)
        # What payloads that could be both are: JSON, text, or to be found out.
        self._wanted = "json" if config.payload == "auto" and "content" in self._given else config.payload
        #: The configuration names a mark at the end of streams: one without it is broken.
        self.announces_end = bool("done" in self._given or config.end_marker or config.end_events)

    @property
    def content(self) -> str:
        """Where text is searched, in words."""
        return self._given.source("content") or "any place that the adapter knows"

    def progress(self) -> Progress:
        """Return the state of a stream that begins."""
        return Progress(
            self._given, {"events": self._events, "endEvents": frozenset(self._config.end_events)}
        )

    def is_marker(self, data: bytes) -> bool:
        """Report whether `data` is the mark that ends the stream."""
        return data.strip() == self._marker.encode()

    def read(self, payload: Payload, progress: Progress) -> Steps[Reading | None]:
        """Return, in steps, the content of `payload`, ``None`` if it is to be skipped.

        :raises APIError: it reports an error, or is not of the configured kind.
        """
        if progress.missing:
            progress.missing.discard(payload.event)
        kind = self._kind(payload.event)
        is_error = kind is Kind.ERROR
        used = self._used is None or is_error or payload.event in self._used
        if not used or payload.event in self._skipped or payload.data.strip() in self._skipped_data:
            return None
        if self.is_marker(payload.data):
            return Reading(done=True)
        ends = payload.event in self._config.end_events
        if self._config.payload == "text" and not is_error:
            silently = payload.event not in self._events
            return _read_text(payload, kind, ends=ends, silently=silently)
        if not payload.data.strip():
            if ends:
                return Reading(done=True)
            # Blanks among plain text are text; elsewhere an empty event only keeps the stream alive.
            is_text = progress.after_text and payload.data and kind in (Kind.UNNAMED, Kind.ANSWER)
            return Reading(payload.data.decode("utf-8", "replace"), plain=True) if is_text else None
        decoded = yield from _decode(payload, kind, progress.after_text, self._wanted)
        if decoded is None:
            return Reading(done=True) if ends else None
        value, plain, crowded = decoded
        yield from _pause(payload)
        if value == self._marker:  # written as a JSON string
            return Reading(done=True)
        if is_error:
            raise chat_stream_error(self._error(value, payload.event, crowded) or _in_words(value))
        error = self._error(value, payload.event, crowded)
        if error is not None:
            raise chat_stream_error(error)
        yield from _pause(payload)
        reading, kind, in_strings = self._extract(value, payload.event, progress, crowded)
        yield from _pause(payload)
        self._conclude(reading, value, payload.event, progress, kind, in_strings=in_strings)
        yield from _pause(payload)
        self._count(reading, value, payload.event, progress, kind, in_strings=in_strings)
        reading.plain = plain
        reading.done = ends or self._is_done(value, payload.event, progress)
        if ends and payload.event not in self._events:
            reading.text = reading.reasoning = None  # it may repeat the whole text
        return reading

    def error_in(self, body: bytes) -> JSON:
        """Return the error, an object or a sentence, in the body of a response with an error status."""
        try:
            value: JSON = decode_json(body)
        except ValueError:
            return None
        error = self._error(value, UNNAMED, done(is_crowded(value)))
        if error is None and isinstance(value, dict):
            error = next((value[key] for key in ("detail", "message", "msg") if value.get(key)), None)
        return error

    def _kind(self, event: str) -> Kind:
        """Return the kind of an event; one that the configuration names is not silent."""
        kind = kind_of_event(event)
        return Kind.ANSWER if kind.is_silent and event in self._events else kind

    def _kind_of(self, event: str, value: JSON) -> Kind:
        """Return the less telling kind of an event's and its payload's."""
        kinds = (
            Kind.UNNAMED if event in self._events else kind_of_event(event, value),
            kind_of_payload(value) if isinstance(value, dict) else Kind.UNNAMED,
        )
        return next((kind for kind in _ASIDE if kind in kinds), Kind.UNNAMED)

    def _error(self, value: JSON, event: str, crowded: bool) -> JSON:
        if "error" not in self._given:
            return search.error_of(value, event, strings_are_text=crowded)
        found = self._given.find("error", value, event)
        if is_no(found):
            return None
        return _in_words(value) if found is True else found

    def _extract(
        self, value: JSON, event: str, progress: Progress, crowded: bool
    ) -> tuple[Reading, Kind, bool]:
        """Return a reading, the kind of the payload, and whether to search for more in strings."""
        given = self._given
        reading = Reading()
        strings_are_text = crowded or progress.strings_are_text is True
        kind = self._kind_of(event, value)
        if not given.has_all("content", "reasoning", "tool_calls"):
            found = search.extract(
                value, event, trusted=event in self._events, strings_are_text=strings_are_text
            )
            reading.text, reading.reasoning = found.text, found.reasoning
            reading.tool_calls = found.tool_calls or []
            if "content" not in given:
                auto = self._config.mode == "auto"
                _guess(reading, found, value, event, crowded=crowded, auto=auto)
                if progress.strings_are_text is None and not crowded and (found.bare or found.nested):
                    progress.strings_are_text = found.bare
            strings_are_text = strings_are_text or (found.found and not found.nested)
            if found.found:
                kind = Kind.ANSWER
        if "content" in given:
            reading.text = progress.text("content", value, event)
        if "reasoning" in given:
            reading.reasoning = progress.text("reasoning", value, event)
        if "tool_calls" in given:
            calls = given.find("tool_calls", value, event)
            reading.tool_calls = calls if isinstance(calls, list) else [calls] if calls else []
        return reading, kind, not strings_are_text

    def _conclude(
        self,
        reading: Reading,
        value: JSON,
        event: str,
        progress: Progress,
        kind: Kind,
        *,
        in_strings: bool,
    ) -> None:
        """Add to a reading what its payload says about the end of the response."""
        given = self._given
        reading.aside = kind in _ASIDE
        if "finish_reason" in given:
            finish = progress.find("finish_reason", value, event)
        else:
            finish = None if reading.aside else signals.finish_of(value, in_strings=in_strings)
        if isinstance(finish, str) and finish.lower() == "error":
            raise upstream_error("The service ended its answer with an error, and did not say which.")
        reading.finish_reason = openai_finish(finish)
        if "replace" in given:
            found = given.find("replace", value, event)
            replacement = None if is_no(found) else given.as_text("replace", found)
        else:
            replacement = signals.replacement_of(value)
        reading.replacement = replacement
        reading.announces_end = not reading.aside and signals.announces_end(value)

    def _count(
        self,
        reading: Reading,
        value: JSON,
        event: str,
        progress: Progress,
        kind: Kind,
        *,
        in_strings: bool,
    ) -> None:
        """Add to a reading the usage that its payload tells."""
        if "usage" in self._given:
            usage = progress.find("usage", value, event)
            progress.uncounted = progress.uncounted or (usage is not None and not isinstance(usage, dict))
        else:
            usage = None if kind is Kind.STEP else signals.usage_of(value, in_strings=in_strings)
        reading.usage = usage if isinstance(usage, dict) else None

    def _is_done(self, value: JSON, event: str, progress: Progress) -> bool:
        if "done" in self._given:
            return not is_no(progress.find("done", value, event))
        # A configured mark replaces the guess by the payload's shape.
        if self.announces_end or self._kind_of(event, value) in _ASIDE:
            return False
        return signals.ends(value)


def _pause(payload: Payload) -> Steps[None]:
    """End a step of the work on a long payload."""
    if len(payload.data) > LONG_BYTES:
        yield


def _read_text(payload: Payload, kind: Kind, *, ends: bool, silently: bool) -> Reading:
    """Return the content of a payload that is text because the configuration says so.

    :param silently: the payload ends the stream without a text.
    """
    text = payload.data.decode("utf-8", "replace")
    if ends and silently:
        return Reading(done=True)
    if kind is Kind.REASONING:
        return Reading(reasoning=text, done=ends)
    return Reading(done=ends, aside=True) if kind.is_silent else Reading(text, done=ends)


def _guess(reading: Reading, found: Extracted, value: JSON, event: str, *, crowded: bool, auto: bool) -> None:
    """Add to a reading what a payload's shape says about its text."""
    reading.message, reading.whole = found.message, found.whole
    reading.only_if_first = found.only_if_first
    if not reading.text and not reading.reasoning:
        return
    reading.may_repeat = lambda: signals.may_repeat(value, in_strings=not crowded)
    if auto:
        reading.may_grow = lambda: signals.may_grow(value, event)


def _decode(
    payload: Payload, kind: Kind, after_text: bool, wanted: str
) -> Steps[tuple[JSON, bool, bool] | None]:
    """Return a payload's JSON, ``False`` and whether that is crowded, or its text, ``True`` and ``False``.

    ``None``: neither, in an event with a name that does not stand for text, such as a ping.
    """
    data = payload.data
    unknown = kind.is_silent
    try:
        value: JSON = yield from decode_steps(data)
    except ValueError:
        begun = _BEGUN_JSON.match(data) is not None
        if unknown and not begun:
            return None
        must_be_json = wanted == "json" or (begun and not after_text)
        if kind is not Kind.ERROR and must_be_json:
            raise upstream_error(
                "The service sent a payload that is no complete JSON; if its payloads are plain text, "
                'set the adapter\'s payload to "text".',
                ErrorCode.UPSTREAM_MALFORMED,
            ) from None
        return data.decode("utf-8", "replace"), True, False
    yield from _pause(payload)
    crowded = len(data) > LIGHT_BYTES and (yield from is_crowded(value))
    scalar = not isinstance(value, dict | list | str)  # such as a token that consists of digits
    if unknown and scalar:
        return None
    text = scalar or (
        after_text and (kind is Kind.ANSWER or not search.is_about_response(value, strings_are_text=crowded))
    )
    if wanted == "auto" and text and not unknown:
        return data.decode("utf-8", "replace"), True, False
    return value, False, crowded


def _in_words(value: JSON) -> JSON:
    return with_message(value) if isinstance(value, dict) else value
