"""A Response, and the events that stream it."""

from __future__ import annotations

from collections.abc import Iterator

from stream_proxy.mock.checks import called_functions, count, missing, optional
from stream_proxy.mock.text import Heard, content_text, formatted, logprobs, sentence, thought, tokens
from stream_proxy.mock.wire import EPOCH, ApiError, JSONObject, digest, fingerprint


def response(body: JSONObject, words: int | None) -> JSONObject:
    """The Response that answers `body`, with a text of `words` words if given: completed or incomplete.

    :raises ApiError: 400 for a request that makes no sense.
    """
    heard, prompt = _heard(body)
    identity = fingerprint(body)
    text = sentence(body["model"], heard, words)
    reasoning = optional(body, "reasoning", dict)
    wanted = optional(body, "include", list) or []
    output = []
    thinking = 0
    if reasoning and reasoning.get("effort") != "none":
        thinking = len(tokens(thought(heard)))
        output.append(
            _reasoning(reasoning, heard, identity, encrypted="reasoning.encrypted_content" in wanted)
        )
    calls = [] if heard.from_tool else called_functions(body, text)
    cut = False
    if calls:
        said = [arguments for _, arguments in calls]
        output += [
            {
                "id": f"fc_{digest(identity, name)}",
                "type": "function_call",
                "status": "completed",
                "arguments": arguments,
                "call_id": f"call_{digest(identity, name)[:24]}",
                "name": name,
            }
            for name, arguments in calls
        ]
    else:
        layout = _layout(body)
        pieces = tokens(formatted(text, layout.get("type"), layout.get("schema"), "text.format"))
        limit = count(body, "max_output_tokens", 1, 1 << 31)
        cut = limit is not None and len(pieces) > limit
        pieces = pieces[:limit]
        said = ["".join(pieces)]
        odds = (
            logprobs(pieces, count(body, "top_logprobs", 0, 20) or 0)
            if "message.output_text.logprobs" in wanted
            else []
        )
        output.append(
            {
                "id": f"msg_{identity}",
                "type": "message",
                "status": "incomplete" if cut else "completed",
                "content": [{"type": "output_text", "annotations": [], "logprobs": odds, "text": said[0]}],
                "role": "assistant",
            }
        )
    answer = thinking + sum(len(tokens(part)) for part in said)
    return {
        "id": f"resp_{identity}",
        "object": "response",
        "created_at": EPOCH,
        "status": "incomplete" if cut else "completed",
        "background": body.get("background") or False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "model": body["model"],
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": body.get("previous_response_id"),
        "prompt_cache_key": body.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None, **(reasoning or {})},
        "service_tier": "default",
        "store": body.get("store") is not False,
        "temperature": _or(body, "temperature", 1.0),
        "text": {"verbosity": "medium", **(optional(body, "text", dict) or {}), "format": _layout(body)},
        "tool_choice": _or(body, "tool_choice", "auto"),
        "tools": _or(body, "tools", []),
        "top_logprobs": _or(body, "top_logprobs", 0),
        "top_p": _or(body, "top_p", 1.0),
        "truncation": _or(body, "truncation", "disabled"),
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": answer,
            "output_tokens_details": {"reasoning_tokens": thinking},
            "total_tokens": prompt + answer,
        },
        "user": body.get("user"),
        "metadata": _or(body, "metadata", {}),
    }


def failed(whole: JSONObject, error: JSONObject | None) -> JSONObject:
    """`whole` as it looks when it failed: with `error` (``code``, ``message``), which may be missing."""
    return {
        **whole,
        "status": "failed",
        "error": error,
        "incomplete_details": None,
        "output": [],
        "usage": None,
    }


def events(whole: JSONObject, *, obfuscate: bool = True) -> Iterator[JSONObject]:
    """The events that stream `whole`, from ``response.created`` to its terminal event."""
    for number, event in enumerate(_events(whole, digest(whole["id"]) if obfuscate else None)):
        yield {"type": event.pop("type"), "sequence_number": number, **event}


def _events(whole: JSONObject, noise: str | None) -> Iterator[JSONObject]:
    early = {**whole, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield {"type": "response.created", "response": early}
    yield {"type": "response.in_progress", "response": early}
    for index, item in enumerate(whole["output"]):
        place = {"output_index": index}
        match item["type"]:
            case "reasoning":
                opened, steps = {**item, "summary": []}, _summary(item, place)
            case "function_call":
                opened, steps = {**item, "status": "in_progress", "arguments": ""}, _arguments(item, place)
            case _:
                opened, steps = {**item, "status": "in_progress", "content": []}, _content(item, place)
        yield {"type": "response.output_item.added", **place, "item": opened}
        for step in steps:
            if noise is not None and "delta" in step:
                step["obfuscation"] = noise[: 16 - len(step["delta"]) % 16]
            yield step
        yield {"type": "response.output_item.done", **place, "item": item}
    yield {"type": f"response.{whole['status']}", "response": whole}


def _summary(item: JSONObject, place: JSONObject) -> Iterator[JSONObject]:
    for index, part in enumerate(item["summary"]):
        where = {"item_id": item["id"], **place, "summary_index": index}
        yield {"type": "response.reasoning_summary_part.added", **where, "part": {**part, "text": ""}}
        for piece in tokens(part["text"]):
            yield {"type": "response.reasoning_summary_text.delta", **where, "delta": piece}
        yield {"type": "response.reasoning_summary_text.done", **where, "text": part["text"]}
        yield {"type": "response.reasoning_summary_part.done", **where, "part": part}


def _arguments(item: JSONObject, place: JSONObject) -> Iterator[JSONObject]:
    where = {"item_id": item["id"], **place}
    for piece in tokens(item["arguments"]):
        yield {"type": "response.function_call_arguments.delta", **where, "delta": piece}
    yield {
        "type": "response.function_call_arguments.done",
        **where,
        "arguments": item["arguments"],
        "name": item["name"],
    }


def _content(item: JSONObject, place: JSONObject) -> Iterator[JSONObject]:
    for index, part in enumerate(item["content"]):
        where = {"item_id": item["id"], **place, "content_index": index}
        odds = part["logprobs"]
        yield {"type": "response.content_part.added", **where, "part": {**part, "text": "", "logprobs": []}}
        for number, piece in enumerate(tokens(part["text"])):
            yield {
                "type": "response.output_text.delta",
                **where,
                "delta": piece,
                "logprobs": odds[number : number + 1],
            }
        yield {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": odds}
        yield {"type": "response.content_part.done", **where, "part": part}


def _heard(body: JSONObject) -> tuple[Heard, int]:
    given = body.get("input")
    if given is None:
        raise missing("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ApiError(
            400,
            "Invalid type for 'input': expected a string or an array of items.",
            param="input",
            code="invalid_type",
        )
    prompt = sum(3 + len(tokens(content_text(item.get("content")))) for item in items)
    if items and items[-1].get("type") == "function_call_output":
        return Heard(content_text(items[-1].get("output")), from_tool=True), prompt
    return Heard(
        next(
            (content_text(item.get("content")) for item in reversed(items) if item.get("role") == "user"), ""
        )
    ), prompt


def _reasoning(reasoning: JSONObject, heard: Heard, identity: str, *, encrypted: bool) -> JSONObject:
    summary = [{"type": "summary_text", "text": thought(heard)}] if reasoning.get("summary") else []
    item = {"id": f"rs_{identity}", "type": "reasoning", "summary": summary}
    if encrypted:
        item["encrypted_content"] = f"gAAAAA{digest(identity, 'reasoning')}"
    return item


def _layout(body: JSONObject) -> JSONObject:
    return optional(optional(body, "text", dict) or {}, "format", dict) or {"type": "text"}


def _or(body: JSONObject, param: str, default: object) -> object:
    value = body.get(param)
    return default if value is None else value
