"""Objects of the Responses API, and the events that stream one."""

from __future__ import annotations

from collections.abc import Iterator

from stream_proxy.mock.checks import called_functions, count, optional
from stream_proxy.mock.text import Prompt, content_text, formatted, logprobs, tokens
from stream_proxy.mock.wire import EPOCH, JSONObject, digest, fingerprint, invalid, missing


def response(body: JSONObject, words: int | None) -> JSONObject:
    """Return the completed or incomplete Response for a request body, with a text of `words` words if given.

    :raises MockError: 400 for an invalid request.
    """
    prompt, input_tokens = _last_prompt(body)
    identity = fingerprint(body)
    text = prompt.response(body["model"], words)
    reasoning = optional(body, "reasoning", dict)
    included = optional(body, "include", list) or []
    output = []
    reasoning_tokens = 0
    if reasoning and reasoning.get("effort") != "none":
        reasoning_tokens = len(tokens(prompt.reasoning()))
        encrypted = "reasoning.encrypted_content" in included
        output.append(_reasoning(reasoning, prompt, identity, encrypted=encrypted))
    calls = [] if prompt.from_tool else called_functions(body, text)
    truncated = False
    if calls:
        texts = [arguments for _, arguments in calls]
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
        truncated = limit is not None and len(pieces) > limit
        pieces = pieces[:limit]
        texts = ["".join(pieces)]
        odds = []
        if "message.output_text.logprobs" in included:
            odds = logprobs(pieces, count(body, "top_logprobs", 0, 20) or 0)
        output.append(
            {
                "id": f"msg_{identity}",
                "type": "message",
                "status": "incomplete" if truncated else "completed",
                "content": [{"type": "output_text", "annotations": [], "logprobs": odds, "text": texts[0]}],
                "role": "assistant",
            }
        )
    output_tokens = reasoning_tokens + sum(len(tokens(text)) for text in texts)
    return {
        "id": f"resp_{identity}",
        "object": "response",
        "created_at": EPOCH,
        "status": "incomplete" if truncated else "completed",
        "background": body.get("background") or False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if truncated else None,
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
        "temperature": _value_or(body, "temperature", 1.0),
        "text": {"verbosity": "medium", **(optional(body, "text", dict) or {}), "format": _layout(body)},
        "tool_choice": _value_or(body, "tool_choice", "auto"),
        "tools": _value_or(body, "tools", []),
        "top_logprobs": _value_or(body, "top_logprobs", 0),
        "top_p": _value_or(body, "top_p", 1.0),
        "truncation": _value_or(body, "truncation", "disabled"),
        "usage": {
            "input_tokens": input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
            "total_tokens": input_tokens + output_tokens,
        },
        "user": body.get("user"),
        "metadata": _value_or(body, "metadata", {}),
    }


def failed(whole: JSONObject, error: JSONObject | None) -> JSONObject:
    """Return the Response `whole` as a failed one, with an error (``code``, ``message``) or without."""
    return {
        **whole,
        "status": "failed",
        "error": error,
        "incomplete_details": None,
        "output": [],
        "usage": None,
    }


def events(whole: JSONObject, *, obfuscate: bool = True) -> Iterator[JSONObject]:
    """Yield the events that stream the Response `whole`, from ``response.created`` to its terminal event."""
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


def _last_prompt(body: JSONObject) -> tuple[Prompt, int]:
    given = body.get("input")
    if given is None:
        raise missing("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise invalid(
            "input", "Invalid type for 'input': expected a string or an array of items.", "invalid_type"
        )
    input_tokens = sum(3 + len(tokens(content_text(item.get("content")))) for item in items)
    if items and items[-1].get("type") == "function_call_output":
        return Prompt(content_text(items[-1].get("output")), from_tool=True), input_tokens
    texts = (content_text(item.get("content")) for item in reversed(items) if item.get("role") == "user")
    return Prompt(next(texts, "")), input_tokens


def _reasoning(reasoning: JSONObject, prompt: Prompt, identity: str, *, encrypted: bool) -> JSONObject:
    summary = [{"type": "summary_text", "text": prompt.reasoning()}] if reasoning.get("summary") else []
    item = {"id": f"rs_{identity}", "type": "reasoning", "summary": summary}
    if encrypted:
        item["encrypted_content"] = f"gAAAAA{digest(identity, 'reasoning')}"
    return item


def _layout(body: JSONObject) -> JSONObject:
    return optional(optional(body, "text", dict) or {}, "format", dict) or {"type": "text"}


def _value_or(body: JSONObject, param: str, default: object) -> object:
    value = body.get(param)
    return default if value is None else value
