"""Checks of request parameters: the right type and range, else a 400 that names them, as from the API."""

from __future__ import annotations

from typing import TypeVar

from stream_proxy.mock.control import Control
from stream_proxy.mock.text import arguments
from stream_proxy.mock.wire import JSONObject, invalid, missing

T = TypeVar("T")


def optional(body: JSONObject, param: str, kind: type[T]) -> T | None:
    """Return the parameter, or `None` if it is absent or null. A boolean does not count as an integer.

    :raises MockError: 400 for a value of another type.
    """
    value = body.get(param)
    if value is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise invalid(param, f"Invalid type for '{param}'.", "invalid_type")
    return value


def required(body: JSONObject, param: str, kind: type[T]) -> T:
    """Return the parameter.

    :raises MockError: 400 if it is absent, null, or of another type.
    """
    value = optional(body, param, kind)
    if value is None:
        raise missing(param)
    return value


def count(body: JSONObject, param: str, least: int, most: int) -> int | None:
    """Return an integer parameter between two bounds, or `None` if it is absent.

    :raises MockError: 400 for any other value.
    """
    value = optional(body, param, int)
    if value is not None and not least <= value <= most:
        code = "integer_below_min_value" if value < least else "integer_above_max_value"
        raise invalid(param, f"Invalid '{param}': expected a value between {least} and {most}.", code)
    return value


def wants_stream(body: JSONObject, control: Control) -> bool:
    """Report whether the request asks for a stream.

    :raises MockError: 400 if a control header refuses it, or for ``stream_options`` without a stream.
    """
    stream = optional(body, "stream", bool) or False
    options = optional(body, "stream_options", dict)
    if not stream and (control.require_stream or body["model"] == "stream-only"):
        raise invalid("stream", "Stream must be set to true")
    if stream and "stream" in control.refuse:
        raise invalid(
            "stream", "Your organization must be verified to stream this model.", "unsupported_value"
        )
    if options is not None and "stream_options" in control.refuse:
        raise invalid("stream_options", "Unrecognized request argument supplied: stream_options")
    if options is not None and not stream:
        raise invalid(
            "stream_options", "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        )
    return stream


def called_functions(body: JSONObject, text: str) -> list[tuple[str, str]]:
    """Return name and arguments of each function that the response calls.

    These are all functions in ``tools``, in the form of chat or of Responses, or the one that ``tool_choice``
    names; only the first with ``parallel_tool_calls: false``.

    :raises MockError: 400 for a tool without a name, or a ``tool_choice`` that is not among the tools.
    """
    tools = optional(body, "tools", list) or []
    functions: dict[str, object] = {}
    for position, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise invalid("tools", f"Invalid type for 'tools[{position}]'.", "invalid_type")
        if tool.get("type") == "function":
            function = tool.get("function", tool)
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                path = "function.name" if "function" in tool else "name"
                raise missing(f"tools[{position}].{path}")
            functions[function["name"]] = function.get("parameters")
    choice = body.get("tool_choice")
    if choice == "none":
        return []
    if isinstance(choice, dict) and choice.get("type") == "function":
        named = choice.get("function", choice)
        name = named.get("name") if isinstance(named, dict) else None
        if name not in functions:
            raise invalid("tool_choice", "Tool choice not found in 'tools'.")
        functions = {name: functions[name]}
    names = list(functions)[:1] if body.get("parallel_tool_calls") is False else list(functions)
    return [(name, arguments(functions[name], text, "tools")) for name in names]
