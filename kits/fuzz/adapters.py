"""Targets for the adapter: its languages, and the responses of services."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from kits.fuzz.checks import Outcome, failed, one_line, outcome, require, same, strict
from kits.fuzz.source import Source
from stream_proxy.adapter.chat_request import parse_chat
from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.dialect import Dialect, DialectError
from stream_proxy.adapter.expressions import Expression, ExpressionError
from stream_proxy.adapter.payloads import Format, PayloadDecoder
from stream_proxy.adapter.service_error import refusal
from stream_proxy.adapter.template import Context, Template, TemplateError
from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.sse import ServerSentEvent
from stream_proxy.errors import APIError
from stream_proxy.lenient_json import encode_json

_EXPRESSIONS = (
    *("", "model", "messages[-1].content"),
    *("last_user_message", "@.x", "messages[?role=='user'].content | [0]"),
    *("text(content)", "from_json(user)", "length(messages)", "sort_by(messages, &role)", "`1`", "'}}'"),
    *("max_tokens || `1024`", "{a: model, b: history}", "to_number('1e999')", "sum(messages[].n)", "&model"),
    *("join(',', messages[].role)", "to_string(@)", "max_by(messages, &content)", "map(&text(@), messages)"),
)
_CONFIGS: tuple[dict[str, Any], ...] = (
    {},
    {"mode": "cumulative"},
    {"payload": "text", "endMarker": "END"},
    {"payload": "json", "content": "data.content", "error": "error", "done": "done"},
    {"content": "text", "usage": "usage", "finishReason": "finish_reason", "toolCalls": "tool_calls"},
    {"events": ["message", "delta"], "endEvents": ["end"], "skipPayloads": ["ping"], "skipEvents": ["x"]},
    {"format": "json"},
    {"format": "ndjson", "mode": "cumulative"},
)
_MEDIA = (b"", b"text/event-stream", b"application/json", b"application/x-ndjson", b"text/plain")
_FORMATS: tuple[Format, ...] = ("auto", "auto", "sse", "ndjson", "json")
_MODELS = ("m", "a")


def expression(data: bytes) -> None:
    """Any text compiles or is rejected in one line, and what compiles can be applied to any value."""
    source = Source(data)
    value = source.value()
    text = source.pick(_EXPRESSIONS) + source.rest().decode("utf-8", "replace")
    try:
        compiled = Expression(text)
    except ExpressionError as error:
        one_line(str(error))
        return
    compiled.leading_fields()
    encode_json(compiled.search(value))


def template(data: bytes) -> None:
    """Any JSON is a template or is rejected in one line, and its result is JSON."""
    source = Source(data)
    call = _call(source)
    value = _braced(source, source.value()) if source.number(2) else source.rest().decode("utf-8", "replace")
    try:
        compiled = Template(value, "adapter.request")
    except TemplateError as error:
        require(str(error).startswith("adapter.request"), "does not name the position", error)
        return
    strict(encode_json(compiled.fill(Context(call))))


def _braced(source: Source, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _braced(source, member) for key, member in value.items()}
    if isinstance(value, list):
        return [_braced(source, member) for member in value]
    if isinstance(value, str) and source.number(3):
        return value + "{{" + source.pick(_EXPRESSIONS) + "}}" + source.pick(["", value, "}", "{{model}}"])
    return value


def _call(source: Source) -> dict[str, Any]:
    messages = [
        {"role": source.pick(["user", "system", "assistant"]), "content": source.value(depth=3)}
        for _ in range(source.number(4))
    ]
    return {**source.object(depth=3), "model": source.pick(_MODELS), "messages": messages}


def dialect(data: bytes) -> None:
    """A request to a service has no whitespace in its target and no line ends in its fields."""
    source = Source(data)
    call = _call(source)
    expressions = [source.pick(_EXPRESSIONS[1:]) for _ in range(3)]
    given: dict[str, Any] = {
        "method": source.pick(["POST", "GET"]),
        "headers": {source.pick(["X-A", "Authorization", "Host"]): f"a {{{{{expressions[0]}}}}}"},
        "forwardAuthorization": True,
    }
    if source.number(2):
        given["request"] = {"q": f"{{{{{expressions[1]}}}}}", "deep": _braced(source, source.value())}
    path = f"/a/{{{{{expressions[2]}}}}}" if source.number(2) else source.rest().decode("utf-8", "replace")
    try:
        made = Dialect("http://127.0.0.1:1" + path, msgspec.convert(given, AdapterConfig), {})
    except DialectError as error:
        require(str(error).strip(), "an empty message")
        return
    try:
        request = made.request(call, [(b"Authorization", b"Bearer x")])
    except APIError as error:
        failed(error)
        return
    require(request.target.startswith(b"/"), "no path", request.target)
    require(all(0x21 <= byte <= 0x7E and byte != 0x23 for byte in request.target), "unsafe", request.target)
    for name, value in request.headers:
        require(not set(name + value) & set(b"\r\n\0"), "a line end in a field", name, value)
    if request.body is not None:
        strict(request.body)


def asked(data: bytes) -> None:
    """A chat request is accepted or rejected."""
    source = Source(data)
    document = source.spelled(_call(source)) if source.number(2) else source.rest()
    try:
        parse_chat(document, _MODELS)
    except APIError as error:
        failed(error)


def payloads(data: bytes) -> None:
    """The payloads of a body do not depend on how it is cut."""
    source = Source(data)
    format, media, bound = source.pick(_FORMATS), source.pick(_MEDIA), source.pick([100, 10**6, 10**6, 10**6])
    stream = _body(source)
    whole = _payloads([stream], format, media, bound)
    cut = _payloads(source.reads(stream), format, media, bound)
    if bound < 10**6 and None in (whole[-1], cut[-1]):
        return  # the bytes delivered before the limit may depend on the cuts
    same("depends on how it is cut", cut, whole)


def _payloads(reads: list[bytes], format: Format, media: bytes, bound: int) -> Outcome:
    decoder = PayloadDecoder(format, media, bound)
    out: list[object] = []
    try:
        for read in reads:
            out += decoder.feed(read)
        out += decoder.end()
    except APIError as error:
        failed(error)
        return out, None
    return out, "ended"


def _body(source: Source) -> bytes:
    how = source.number(3)
    if how == 0:
        return source.rest()
    if how == 1:
        return source.events()
    lines: list[bytes] = []
    while source.left > 2 and len(lines) < 50:
        lines.append(source.spelled(source.chunk() if source.number(2) else source.value()))
    return source.pick([b"\n", b"\r\n", b"\n\n", b""]).join(lines) + source.pick(
        [b"", b"\n", b"{", b"[DONE]"]
    )


@cache
def _dialect(number: int) -> Dialect:
    return Dialect("http://127.0.0.1:1/", msgspec.convert(_CONFIGS[number], AdapterConfig), {})


def translation(data: bytes) -> None:
    """The chunks of a service's body do not depend on how it is cut, and they make one completion."""
    source = Source(data)
    made, media = _dialect(source.number(len(_CONFIGS))), source.pick(_MEDIA)
    stream = _body(source)
    whole = _translated(made, media, [stream])
    same("depends on how it is cut", _translated(made, media, source.reads(stream)), whole)
    failed(refusal(400 + source.number(200), stream, made.reader, "http://127.0.0.1:1"))


def _translated(made: Dialect, media: bytes, reads: list[bytes]) -> Outcome:
    reading = made.translation(media, ("id", 1, "m"), include_usage=True, max_bytes=10**6)
    chunks: list[bytes] = []

    def run() -> Outcome:
        for read in reads:
            chunks.extend(reading.feed(read))
        chunks.extend(reading.end())
        return ("ended",)

    end = outcome(run)
    accumulator = ChatCompletionsAccumulator()
    for chunk in chunks:
        strict(chunk)
        accumulator.feed(ServerSentEvent(data=chunk))
    if end == ("ended",):
        accumulator.feed(ServerSentEvent(data=b"[DONE]"))
        strict(accumulator.result_bytes())
    return chunks, end
