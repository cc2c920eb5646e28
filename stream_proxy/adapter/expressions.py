"""JMESPath expressions of configurations, checked when they are compiled so that a search never fails.

The language is that of https://jmespath.org with two more functions: ``from_json(text)``, the value in a
string of JSON (``null`` if it is none), and ``text(content)``, the text of a message's content, which may be
a string or a list of parts. ``$event`` and ``$headers`` are values that stand beside the one searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jmespath
from jmespath import functions
from jmespath.exceptions import EmptyExpressionError, JMESPathError, LexerError, ParseError

from stream_proxy.adapter.helpers import content_text
from stream_proxy.json_bounds import most_searched
from stream_proxy.lenient_json import JSON, decode_json, values_exceed

_Node = Mapping[str, Any]


class ExpressionError(ValueError):
    """An expression that cannot be used; the message is one line with the position and the reason."""


class _Functions(functions.Functions):
    def __init__(self, variables: Mapping[str, JSON] = MappingProxyType({})) -> None:
        super().__init__()
        self._variables = variables

    @functions.signature()
    def _func_variable_event(self) -> JSON:
        return self._variables.get("event")

    @functions.signature()
    def _func_variable_headers(self) -> JSON:
        return self._variables.get("headers")

    @functions.signature({"types": []})
    def _func_from_json(self, text: JSON) -> JSON:
        try:
            if not isinstance(text, str):
                return text
            data = text.encode("utf-8", "surrogatepass")
            return None if values_exceed(data, most_searched()) else decode_json(data)
        except ValueError:
            return None

    @functions.signature({"types": []})
    def _func_text(self, content: JSON) -> str:
        return content_text(content)


#: The values that stand beside the one searched.
VARIABLES = ("event", "headers")
# JMESPath (before its version with scopes) has no variables: each is a call of a function without arguments.
_VARIABLE = re.compile(rf"\$({'|'.join(VARIABLES)})\b")
_QUOTED = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`)""")
_CALL_PREFIX = "variable_"
_FUNCTIONS = _Functions()
_OPTIONS = jmespath.Options(custom_functions=_FUNCTIONS)


class Expression:
    """A compiled expression.

    :param source: the expression as written.
    :raises ExpressionError: it does not parse, or calls an unknown function, or one with wrong arguments.
    """

    def __init__(self, source: str) -> None:
        self.source = source.strip()
        called = _with_calls(self.source)
        #: The names of the values beside the one searched that it refers to.
        self.variables = frozenset(_VARIABLE.findall("".join(_QUOTED.split(self.source)[::2])))
        try:
            self._compiled = jmespath.compile(called)
        except EmptyExpressionError:
            raise ExpressionError("is empty; it must be a JMESPath expression") from None
        except LexerError as error:
            raise self._wrong(_position(self.source, error.lexer_position), error.message) from None
        except ParseError as error:
            what = "it ends too early" if not error.token_value else f"unexpected {error.token_value!r}"
            raise self._wrong(_position(self.source, error.lex_position), what) from None
        except (JMESPathError, RecursionError, ValueError) as error:
            words = " ".join(str(error).split())
            raise ExpressionError(_printable(f"is no JMESPath expression: {words}")) from None
        for node in _walk(self._compiled.parsed):
            if node["type"] == "function_expression":
                self._check_call(node)
            elif any(child["type"] == "expref" for child in _children(node)):
                raise self._wrong(self.source.find("&"), "& only stands before the argument of a function")
        if self._compiled.parsed["type"] == "expref":
            raise self._wrong(0, "& only stands before the argument of a function")

    def search(self, value: JSON, variables: Mapping[str, JSON] | None = None) -> JSON:
        """Return the part of `value` that the expression selects; ``None`` where it does not apply.

        :param variables: the values of :data:`VARIABLES`.
        """
        options = _OPTIONS
        if self.variables and variables is not None:
            options = jmespath.Options(custom_functions=_Functions(variables))
        try:
            found: JSON = self._compiled.search(value, options=options)
            return found
        except (JMESPathError, RecursionError, ValueError, TypeError, OverflowError):
            return None  # the length of a number, for example: to its user just a path that leads nowhere

    def leading_fields(self) -> set[str]:
        """Return the fields that the expression reads of the value itself, rather than of one of its members.

        Fields written after ``@.`` are left out.
        """
        return set(_leading(self._compiled.parsed))

    def _wrong(self, position: int, what: str) -> ExpressionError:
        return ExpressionError(_printable(f"column {position + 1}: {what}, in {self.source}"))

    def _check_call(self, node: _Node) -> None:
        name = node["value"]
        known = _FUNCTIONS.FUNCTION_TABLE.get(name)
        found = re.search(rf"\b{re.escape(name)}\s*\(", self.source)
        place = found.start() if found is not None else 0
        if known is None:
            raise self._wrong(place, f"there is no function {name}()")
        signature = known["signature"]
        given, wanted = len(node["children"]), len(signature)
        variadic = bool(signature) and signature[-1].get("variadic", False)
        if given < wanted or (given > wanted and not variadic):
            at_least = "at least " if variadic else ""
            raise self._wrong(place, f"{name}() takes {at_least}{wanted} arguments, not {given}")


def _with_calls(source: str) -> str:
    """Return `source` with each variable, outside of quotes, as the call that stands for it."""
    pieces = _QUOTED.split(source)
    pieces[::2] = [_VARIABLE.sub(rf"{_CALL_PREFIX}\1()", piece) for piece in pieces[::2]]
    return "".join(pieces)


def _position(source: str, position: int) -> int:
    """Return the position in `source` of what is at `position` in its form with calls."""
    return next(
        (at for at in range(len(source)) if len(_with_calls(source[: at + 1])) > position), len(source)
    )


def _printable(text: str) -> str:
    """Return `text` with control characters escaped, so that it is one line."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def _children(node: _Node) -> list[_Node]:
    return [child for child in node["children"] if isinstance(child, dict)]


def _walk(node: _Node) -> Iterator[_Node]:
    todo = [node]
    while todo:
        one = todo.pop()
        yield one
        todo.extend(_children(one))


# Nodes whose first child reads the value, and whose other children read the result of that child.
_CHAINS = frozenset(
    {
        "filter_projection",
        "flatten",
        "index_expression",
        "pipe",
        "projection",
        "slice",
        "subexpression",
        "value_projection",
    }
)


def _leading(node: _Node) -> Iterator[str]:
    if node["type"] == "field":
        yield node["value"]
        return
    if node["type"] in ("literal", "current", "expref"):
        return
    children = _children(node)
    for child in children[:1] if node["type"] in _CHAINS else children:
        yield from _leading(child)
