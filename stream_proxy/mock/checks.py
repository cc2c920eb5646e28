"""A request's parameters, read as the API does: of the right type and in range, or a 400 that names them."""

from __future__ import annotations

from typing import Any, TypeVar

from stream_proxy.mock.control import Control
from stream_proxy.mock.text import arguments
from stream_proxy.mock.wire import ApiError, JSONObject

T = TypeVar("T")


def missing(param: str) -> ApiError:
    """The error for a parameter that must be there."""
    return ApiError(
        400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def optional(body: JSONObject, param: str, kind: type[T]) -> T | None:
    """The parameter, or `None` where it is absent or null; `True` is no integer.

    :raises ApiError: 400 for another type.
    """
    value = body.get(param)
    if value is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ApiError(400, f"Invalid type for '{param}'.", param=param, code="invalid_type")
    return value


def count(body: JSONObject, param: str, least: int, most: int) -> int | None:
    """An integer parameter between two bounds, or `None`.

    :raises ApiError: 400 for anything else.
    """
    value = optional(body, param, int)
    if value is not None and not least <= value <= most:
        raise ApiError(
            400,
            f"Invalid '{param}': expected a value between {least} and {most}.",
            param=param,
            code="integer_below_min_value" if value < least else "integer_above_max_value",
        )
    return value


def streamed(body: JSONObject, control: Control) -> bool:
    """Whether the answer shall be a stream.

    :raises ApiError: 400 where the mock was asked to refuse, or for ``stream_options`` without a stream.
    """
    stream = optional(body, "stream", bool) or False
    options = optional(body, "stream_options", dict)
    if not stream and (control.require_stream or body["model"] == "stream-only"):
        raise ApiError(400, "Stream must be set to true", param="stream")
    if stream and "stream" in control.refuse:
        raise ApiError(
            400,
            "Your organization must be verified to stream this model.",
            param="stream",
            code="unsupported_value",
        )
    if options is not None and "stream_options" in control.refuse:
        raise ApiError(400, "Unrecognized request argument supplied: stream_options", param="stream_options")
    if options is not None and not stream:
        raise ApiError(
            400,
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    return stream


def called_functions(body: JSONObject, text: str) -> list[tuple[str, str]]:
    """Name and arguments of the functions that the model calls, in the form of chat or of Responses.

    All that ``tools`` define, or the one that ``tool_choice`` names; the first one with
    ``parallel_tool_calls: false``.

    :raises ApiError: 400 for tools that have no name, or a choice that is not among them.
    """
    tools = optional(body, "tools", list) or []
    functions: dict[str, Any] = {}
    for position, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise ApiError(400, f"Invalid type for 'tools[{position}]'.", param="tools", code="invalid_type")
        if tool.get("type") == "function":
            function = tool.get("function", tool)
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise missing(
                    f"tools[{position}].function.name" if "function" in tool else f"tools[{position}].name"
                )
            functions[function["name"]] = function.get("parameters")
    choice = body.get("tool_choice")
    if choice == "none":
        return []
    if isinstance(choice, dict) and choice.get("type") == "function":
        named = choice.get("function", choice)
        name = named.get("name") if isinstance(named, dict) else None
        if name not in functions:
            raise ApiError(400, "Tool choice not found in 'tools'.", param="tool_choice")
        functions = {name: functions[name]}
    names = list(functions)[:1] if body.get("parallel_tool_calls") is False else list(functions)
    return [(name, arguments(functions[name], text, "tools")) for name in names]
