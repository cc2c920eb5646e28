"""Templates: JSON whose strings may hold ``{{expressions}}`` over the OpenAI request."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from copy import copy
from typing import TypeAlias

from stream_proxy.adapter.expressions import Expression, ExpressionError
from stream_proxy.adapter.helpers import HELPERS, helper
from stream_proxy.http.headers import RawHeader
from stream_proxy.lenient_json import JSON, JSONObject, encode_json

#: The fields of a chat completion request in the OpenAI API reference.
REQUEST_FIELDS = frozenset(
    {
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "modalities",
        "model",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)

_MAX_DEPTH = 100
_KNOWN = REQUEST_FIELDS | HELPERS
_Piece = str | Expression
_Compiled: TypeAlias = "TextTemplate | dict[str, _Compiled] | list[_Compiled] | str | int | float | None"


class TemplateError(ValueError):
    """A template that cannot be used; the message is the position and the reason."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")


class Headers(JSONObject):
    """Header fields, whose names are the same in any case."""

    def get(self, key: str, default: JSON = None) -> JSON:  # type: ignore[override]
        return super().get(key.lower(), default)


class Context(JSONObject):
    """The value that the expressions of templates read: the request and, where they are used, the helpers.

    :param headers: the client's header fields.
    """

    def __init__(
        self,
        request: JSONObject,
        helpers: frozenset[str] = HELPERS,
        headers: Sequence[RawHeader] = (),
    ) -> None:
        super().__init__(request)
        fields = Headers()
        for field, value in headers:
            key, text = field.decode("latin-1").lower(), value.decode("utf-8", "replace")
            fields[key] = f"{fields[key]}, {text}" if key in fields else text
        #: The values beside the request.
        self.variables: dict[str, JSON] = {"headers": fields}
        for name in helpers:
            self[name] = helper(name, request)


class TextTemplate:
    """A string with any number of ``{{expressions}}`` in it.

    :param place: its position in the configuration, for errors.
    :raises TemplateError: it does not parse, or refers to a field that no request has.
    """

    def __init__(self, text: str, place: str) -> None:
        self._pieces = _pieces(text, place)

    @property
    def expressions(self) -> list[Expression]:
        """Its expressions."""
        return [piece for piece in self._pieces if isinstance(piece, Expression)]

    @property
    def literals(self) -> list[str]:
        """The text around them."""
        return [piece for piece in self._pieces if isinstance(piece, str)]

    def with_literals(self, change: Callable[[str], str]) -> TextTemplate:
        """Return the template with `change` applied to its literals."""
        changed = copy(self)
        changed._pieces = [change(piece) if isinstance(piece, str) else piece for piece in self._pieces]
        return changed

    def value(self, context: Context) -> JSON:
        """Return the value of an expression that stands alone, with its type; else a string."""
        if len(self._pieces) == 1 and isinstance(self._pieces[0], Expression):
            return self._pieces[0].search(context, context.variables)
        return self.text(context)

    def text(self, context: Context, quote: Callable[[str], str] = str) -> str:
        """Return a string, with each value through `quote`: ``null`` is empty, all but strings are JSON."""
        return "".join(
            piece if isinstance(piece, str) else quote(_as_text(piece.search(context, context.variables)))
            for piece in self._pieces
        )


class Template:
    """A JSON value with expressions in its strings.

    :raises TemplateError: as :class:`TextTemplate`.
    """

    def __init__(self, value: JSON, place: str) -> None:
        self._texts: list[TextTemplate] = []
        if _depth(value) > _MAX_DEPTH:
            raise TemplateError(place, f"is nested deeper than {_MAX_DEPTH}")
        self._value = self._compile(value, place)

    @property
    def helpers(self) -> frozenset[str]:
        """The helpers that its expressions use."""
        return helpers_of(self._texts)

    def fill(self, context: Context) -> JSON:
        """Return the value. A member whose expression finds nothing is left out of its object."""
        return self._fill(self._value, context)

    def _compile(self, value: JSON, place: str) -> _Compiled:
        if isinstance(value, str):
            text = TextTemplate(value, place)
            if not text.expressions:
                return value
            self._texts.append(text)
            return text
        if isinstance(value, list):
            return [self._compile(item, f"{place}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {key: self._compile(item, f"{place}.{key}") for key, item in value.items()}
        return value

    def _fill(self, value: _Compiled, context: Context) -> JSON:
        if isinstance(value, TextTemplate):
            return value.value(context)
        if isinstance(value, list):
            return [self._fill(item, context) for item in value]
        if isinstance(value, dict):
            filled = {key: self._fill(item, context) for key, item in value.items()}
            return {key: item for key, item in filled.items() if item is not None or value[key] is None}
        return value


def _depth(value: JSON) -> int:
    """Return how deep objects and lists are nested in `value`."""
    depth, level = 0, [value]
    while level := [
        member
        for item in level
        if isinstance(item, dict | list)
        for member in (item.values() if isinstance(item, dict) else item)
    ]:
        depth += 1
    return depth


def helpers_of(texts: list[TextTemplate]) -> frozenset[str]:
    """Return the helpers that the expressions of these templates use."""
    used: set[str] = set()
    for text in texts:
        for expression in text.expressions:
            # By spelling alone, which includes @.history: one too many costs little, a missing one is wrong.
            used.update(name for name in HELPERS if name in expression.source)
    return frozenset(used)


def _pieces(text: str, place: str) -> list[_Piece]:
    pieces: list[_Piece] = []
    at = 0
    while (start := text.find("{{", at)) >= 0:
        end = _closing(text, start + 2)
        if end < 0:
            raise TemplateError(place, f"column {start + 1}: {{{{ without its }}}}")
        if start > at:
            pieces.append(text[at:start])
        pieces.append(_expression(text[start + 2 : end], place))
        at = end + 2
    if at < len(text):
        pieces.append(text[at:])
    return pieces


def _closing(text: str, at: int) -> int:
    """Return the position of the ``}}`` that ends the expression beginning at `at`, or -1."""
    depth = 0
    quote = ""
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"`":
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return at if text.startswith("}}", at) else -1
            depth -= 1
        at += 1
    return -1


def _expression(source: str, place: str) -> Expression:
    try:
        expression = Expression(source)
    except ExpressionError as error:
        raise TemplateError(place, str(error)) from None
    if "event" in expression.variables:
        raise TemplateError(place, "$event is only known where a payload is read; here there is $headers")
    for name in sorted(expression.leading_fields() - _KNOWN):
        near = difflib.get_close_matches(name, _KNOWN, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; for a field of your clients' own write @.{name}"
        raise TemplateError(
            place, f"{{{{{source.strip()}}}}} refers to {name}, which no chat completion request has{hint}"
        )
    return expression


def _as_text(value: JSON) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else encode_json(value).decode()
