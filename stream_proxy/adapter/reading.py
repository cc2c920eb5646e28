"""Readings of payloads, the progress of a stream, and the configured expressions for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.expressions import Expression, ExpressionError
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import upstream_error
from stream_proxy.lenient_json import JSON, JSONObject, encode_json

_FIELDS = ("content", "reasoning", "tool_calls", "finish_reason", "usage", "error", "done", "replace")
# Expressions for what every response has. The others may well find nothing in a whole stream.
_EXPECTED = ("content", "reasoning", "finish_reason", "usage", "done")


def never() -> bool:
    """Return ``False``."""
    return False


@dataclass(slots=True)
class Reading:
    """The content of one payload.

    ``replacement``: a text instead of all that came before. ``message``, ``whole`` and ``only_if_first``: see
    :class:`~stream_proxy.adapter.shapes.extracted.Extracted`. ``done``: it is the last one. ``plain``: it is
    no JSON, but the text itself. ``aside``: an event of a kind that says nothing about the text.
    ``may_repeat``: its text may be the whole text, which came in pieces before. ``may_grow``: its text may be
    the whole text so far; both are asked only about texts that are long enough. ``announces_end``: its
    stream marks its end.
    """

    text: str | None = None
    reasoning: str | None = None
    tool_calls: list[JSON] = field(default_factory=list)
    replacement: str | None = None
    message: str | None = None
    whole: bool = False
    only_if_first: bool = False
    finish_reason: str | None = None
    usage: JSONObject | None = None
    done: bool = False
    plain: bool = False
    aside: bool = False
    may_repeat: Callable[[], bool] = never
    may_grow: Callable[[], bool] = never
    announces_end: bool = False


class Selection:
    """The expressions of a configuration.

    :raises ExpressionError: one cannot be used; the text begins with its key.
    """

    def __init__(self, config: AdapterConfig) -> None:
        self._expressions: dict[str, Expression] = {}
        for name in _FIELDS:
            source = getattr(config, name)
            if source is not None:
                try:
                    self._expressions[name] = _expression(source)
                except ExpressionError as error:
                    raise ExpressionError(f"{_camel(name)}: {error}") from None

    def __contains__(self, name: str) -> bool:
        return name in self._expressions

    def has_all(self, *names: str) -> bool:
        """Report whether there is an expression for each of `names`."""
        return all(name in self._expressions for name in names)

    def expected(self) -> set[str]:
        """Return the names of those that should find something in every stream."""
        return {name for name in _EXPECTED if name in self._expressions}

    def source(self, name: str) -> str | None:
        """Return an expression as it is written."""
        expression = self._expressions.get(name)
        return None if expression is None else expression.source

    def find(self, name: str, value: JSON, event: str) -> JSON:
        """Return what an expression finds in a payload."""
        return self._expressions[name].search(value, {"event": event})

    def as_text(self, name: str, found: JSON) -> str | None:
        """Return what an expression found as text.

        :raises APIError: it is none.
        """
        return _text(found, name, self._expressions[name])


class Progress:
    """What the payloads of one stream have shown so far.

    :param given: the configured expressions.
    :param names: the configured names of events, by their key.
    """

    def __init__(self, given: Selection, names: Mapping[str, frozenset[str]]) -> None:
        self._given = given
        self._names = names
        #: Expressions that found nothing yet, and events that have not come.
        self.unmatched = given.expected()
        self.missing = set[str]().union(*names.values())
        #: The payloads before were plain text.
        self.after_text = False
        #: Strings are text where other services have JSON in them; ``None`` before the first.
        self.strings_are_text: bool | None = None
        #: What was found for the usage has no counts.
        self.uncounted = False

    def find(self, name: str, value: JSON, event: str) -> JSON:
        """Return what an expression finds in a payload."""
        found = self._given.find(name, value, event)
        if found is not None and self.unmatched:
            self.unmatched.discard(name)
        return found

    def text(self, name: str, value: JSON, event: str) -> str | None:
        """Return what an expression finds as text.

        :raises APIError: it is none.
        """
        return self._given.as_text(name, self.find(name, value, event))

    def remarks(self) -> list[str]:
        """Return what seems wrong in the configuration after a whole stream, a sentence for each."""
        found = [
            f"adapter.{_camel(name)} found nothing in a whole stream: {self._given.source(name)}"
            for name in sorted(self.unmatched)
        ]
        for key, names in self._names.items():
            found += [
                f"adapter.{key} has an event that did not come in a whole stream: {name}"
                for name in sorted(names & self.missing)
            ]
        if self.uncounted:
            found.append("adapter.usage: what the service sends as usage has no count of a known name")
        return found


def _expression(source: str) -> Expression:
    expression = Expression(source)
    if "headers" in expression.variables:
        raise ExpressionError("$headers is only known in templates; here there is $event")
    return expression


def is_no(found: JSON) -> bool:
    """Report whether a condition found nothing, or that it does not hold."""
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
