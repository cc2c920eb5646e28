"""Targets for input from clients and from files."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from kits.fuzz.checks import one_line, require, same, strict
from kits.fuzz.source import Source
from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.errors import ConfigError
from stream_proxy.flows.conversion.call import (
    Kind,
    call_to_convert,
    convertible_kind,
    refuses_include_usage,
    refuses_stream,
)
from stream_proxy.http.target import origin_form
from stream_proxy.http.url import parse_upstream_url
from stream_proxy.lenient_json import decode_json, decode_members, encode_json
from stream_proxy.service.configuration.loading import parse_config
from stream_proxy.service.configuration.types import Config, Rule

_STRUCTS = (Config, Rule, AdapterConfig)
_CONFIG_KEYS = (
    *(field.encode_name for struct in _STRUCTS for field in msgspec.structs.fields(struct)),
    *("file", "environment", "key\n", "\ud800"),
)
_URLS = (
    *("http://127.0.0.1:1", "https://api.openai.com/v1/", "http://[::1]:80", "http://x/{{model}}?a={{user}}"),
    *("ftp://x", "http://", "http://a:b@c", "http://x:99999"),
    *("http://x/%", "http://[::1", "http://é.example"),
)
_PATHS = (b"/v1/chat/completions", b"/v1/responses/", b"/openai/deployments/a%20b/chat/completions?x=1")


def config(data: bytes) -> None:
    """A config is accepted, or rejected in one line."""
    source = Source(data)
    if source.number(3):
        rules = [_rule(source) for _ in range(1 + source.number(2))]
        value = {**source.object(_CONFIG_KEYS), "rules": rules}
        document = source.spelled(value)
    else:
        document = source.rest()
    try:
        loaded, warnings = parse_config(document, "config.json")
    except ConfigError as error:
        for line in str(error).split("\n"):  # one for each mistake
            one_line(line)
        return
    for warning in warnings:
        one_line(warning)
    for rule in loaded.rules:
        loaded.limits_of(rule)


def _rule(source: Source) -> dict[str, Any]:
    rule = {"upstreamUrl": source.pick(_URLS), "listenPort": 1 + source.number(3)}
    if source.number(2):
        rule["adapter"] = source.object(_CONFIG_KEYS)
    if not source.number(3):
        rule.update(source.object(_CONFIG_KEYS))
    return rule


def url(data: bytes) -> None:
    """A base URL is parsed, or rejected in one line."""
    source = Source(data)
    text = source.pick(("", *_URLS)) + source.rest().decode("utf-8", "replace")
    try:
        parsed = parse_upstream_url(text)
    except ValueError as error:
        require(str(error).strip(), "an empty message")
        return
    require(not set(parsed.netloc + parsed.prefix) & set(b"\r\n \t?#"), "unsafe", parsed)
    require(0 < parsed.port < 65536, "no port", parsed)
    again = parse_upstream_url(parsed.origin + parsed.prefix.decode("ascii"))
    same("differs when parsed again", again, parsed)


def head(data: bytes) -> None:
    """An accepted target is a path without whitespace and line ends, and any head can be classified."""
    source = Source(data)
    method = source.pick([b"POST", b"GET", b"post"])
    fields = [
        (source.pick([b"Content-Type", b"content-encoding"]), source.text().encode("utf-8", "replace"))
        for _ in range(source.number(4))
    ]
    if source.number(2):
        fields.append((b"Content-Type", b"application/json"))
    target = source.pick([b"", b"http://x", b"HTTPS://x/", *_PATHS]) + source.rest()
    path = origin_form(target)
    if path is not None:
        require(path.startswith(b"/"), "no path", path)
        require(all(0x21 <= byte <= 0x7E for byte in path), "unsafe", path)
        require(target.endswith(path.removeprefix(b"/")), "changed", target, path)
        convertible_kind(method, path, fields)


def body(data: bytes) -> None:
    """A converted call asks for a stream, and otherwise says what the client said."""
    source = Source(data)
    kind = source.pick(list(Kind))
    target = source.pick(_PATHS)
    if source.number(3):
        value = {**source.object(), **({"model": source.text()} if source.number(2) else {})}
        document = source.spelled(value)
    else:
        document = source.rest()
    for status in (400, 422):
        refuses_stream(status, document)
        refuses_include_usage(status, document)
    call = call_to_convert(kind, target, document)
    if call is None:
        return
    before = _members(document)
    for with_usage in (False, True):
        after = _members(bytes(call.body(include_usage=with_usage)))
        require(after["stream"] is True, "no stream", after)
        options = after.get("stream_options") or {}
        wanted = with_usage and kind is Kind.CHAT
        if kind is Kind.CHAT:
            require(options.get("include_usage", False) is wanted, "usage", after)
        for name in before.keys() - {"stream", "stream_options"}:
            same(f"{name} changed", _spelling(after[name]), _spelling(before[name]))
        require(after.keys() - before.keys() <= {"stream", "stream_options"}, "added", after, before)


def _members(document: bytes) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(document.decode("utf-8", "surrogateescape"))
    return members


def _spelling(value: Any) -> str:
    return json.dumps(value)


def jsontext(data: bytes) -> None:
    """Decoded values can be encoded as strict JSON, and the members of an object match its decoded value."""
    source = Source(data)
    document = source.spelled(source.value()) if source.number(2) else source.rest()
    try:
        value = decode_json(document)
    except ValueError:
        value = None
    else:
        encoded = encode_json(value)
        strict(encoded)
        same("differs when decoded again", encode_json(decode_json(encoded)), encoded)
    try:
        members = decode_members(document)
    except ValueError:
        require(not isinstance(value, dict), "an object without members", document)
        return
    if isinstance(value, dict):
        same("other members", list(members), list(value))
        for name, raw in members.items():
            same(name, encode_json(decode_json(bytes(raw))), encode_json(value[name]))
