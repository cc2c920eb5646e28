"""Calls that can be converted: which requests make one, and what is sent in their place. Sans-I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal, TypeAlias, cast

import msgspec
from msgspec import Raw

from stream_proxy.http.body_kind import media_type
from stream_proxy.http.body_pieces import BodyPieces
from stream_proxy.http.content_coding import content_codings
from stream_proxy.http.headers import RawHeader
from stream_proxy.http.json_members import Value
from stream_proxy.lenient_json import decode_members, encode_json, is_integer
from stream_proxy.observe.kinds import APIKind, api_kind

_DEPLOYMENT = re.compile(rb"/deployments/([^/]+)/")
_FALSE = (b"false", b"null")
# The members that are read here.
_LOOKED_AT = ("stream", "stream_options", "model", "background", "audio", "n")

#: Statuses of errors that may be about the stream, or about an option that only a stream has.
FALLBACK_STATUSES = (400, 422)

Members: TypeAlias = Mapping[str, Value]
IncludeUsage = Literal["auto", "always", "never"]


class Kind(Enum):
    """APIs whose responses can be aggregated from a stream."""

    CHAT = "chat"
    RESPONSES = "responses"

    __hash__ = object.__hash__  # Enum's takes a call in Python


_KINDS: Mapping[APIKind, Kind] = {"chat": Kind.CHAT, "responses": Kind.RESPONSES}


@dataclass(frozen=True, slots=True)
class Call:
    """An ordinary call that can be made as a stream.

    ``fields`` are the members of the request body as the client wrote them, ``model`` is the key of
    remembered refusals (calls for audio have their own), ``n`` the number of choices of a chat completion.
    """

    kind: Kind
    fields: Members
    model: bytes
    n: int = 1

    def body(self, *, include_usage: bool) -> bytes | BodyPieces:
        """Return the body that asks for a stream; all but ``stream`` and ``stream_options`` is as it came."""
        fields = dict(self.fields)
        fields["stream"] = Raw(b"true")
        if self.kind is Kind.CHAT:
            options = _object(_plain(fields, "stream_options")) or {}
            options.pop("include_usage", None)
            if include_usage:
                options["include_usage"] = Raw(b"true")
            if options:
                fields["stream_options"] = Raw(_encoded(options))
            else:
                fields.pop("stream_options", None)
        if any(isinstance(value, BodyPieces) for value in fields.values()):
            return _in_pieces(fields)
        return _encoded(cast("dict[str, Raw]", fields))


def convertible_kind(method: bytes, target: bytes, headers: Iterable[RawHeader]) -> Kind | None:
    """Return the kind of call that a request may be, judged by its head, or ``None``."""
    kind = _kind_of(target) if method == b"POST" else None
    if kind is None:
        return None
    content_types: list[bytes] = []
    for name, value in headers:
        lower = name.lower()
        if lower == b"content-type":
            content_types = [value]  # the last one counts
        elif lower == b"content-encoding" and content_codings((value,)):
            return None
    return kind if media_type(content_types) == b"application/json" else None


def why_by_head(target: bytes, headers: Iterable[RawHeader]) -> str | None:
    """Return why a POST of this head is not converted, ``None`` where the API is another one anyway."""
    if _kind_of(target) is None:
        return None
    coded = content_codings(value for name, value in headers if name.lower() == b"content-encoding")
    return "encoded body" if coded else "not JSON"


def call_to_convert(kind: Kind, target: bytes, body: bytes) -> Call | None:
    """Return the call that `body` makes, or ``None`` if the request is to pass through as it is."""
    return call_of(kind, target, members_of(body))


def call_of(kind: Kind, target: bytes, fields: Members | None) -> Call | None:
    """Return the call that a body with these members makes, as `call_to_convert` does.

    :param fields: ``None`` for a body that is no JSON object. A call is not converted if one of the members
        that are looked at has more than 64 KiB.
    """
    if fields is None or not _is_false(_plain(fields, "stream")) or not _are_plain(fields):
        return None
    deployment = _DEPLOYMENT.search(target.partition(b"?")[0])
    if "model" not in fields and deployment is None:
        return None
    named = _plain(fields, "model")
    model = bytes(named).strip() if named is not None else (deployment[1] if deployment else b"")
    call = Call(kind, fields, model[:256])
    if kind is Kind.RESPONSES:
        return None if bytes(_plain(fields, "background") or b"").strip() == b"true" else call
    audio = _object(_plain(fields, "audio"))
    if audio is not None:  # a refusal of its format is one neither of texts nor of another format
        format = bytes(audio.get("format", b"")).strip()[:16]
        call = replace(call, model=b"audio %b %b" % (format, call.model))
    n = _decoded(_plain(fields, "n"))
    return replace(call, n=n) if is_integer(n) and n > 1 else call


def why_by_body(kind: Kind, target: bytes, fields: Members | None) -> str | None:
    """Return why a body with these members is not converted, ``None`` if it asks for a stream."""
    if fields is None:
        return "not JSON"
    stream = _plain(fields, "stream")
    if stream is not None and bytes(stream).strip() == b"true":
        return None
    if not _are_plain(fields):
        return "long members"
    if not _is_false(stream):
        return "stream is no boolean"
    if "model" not in fields and _DEPLOYMENT.search(target.partition(b"?")[0]) is None:
        return "no model"
    return "background"


def model_of(target: bytes, fields: Members | None) -> str | None:
    """Return the name of the model that a call asks for, in its body or by its deployment."""
    name = _decoded(_plain(fields, "model")) if fields is not None else None
    if isinstance(name, str) and name:
        return name
    deployment = _DEPLOYMENT.search(target.partition(b"?")[0])
    return deployment[1].decode("utf-8", "backslashreplace") if deployment else None


def members_of(body: bytes) -> Members | None:
    """Return the members of a body, each as it stands, or ``None`` if it is no JSON object."""
    return _object(body)


def refuses_include_usage(status: int, body: bytes) -> bool:
    """Report whether an error is about ``stream_options.include_usage``."""
    return status in FALLBACK_STATUSES and (b"stream_options" in body or b"include_usage" in body)


def refuses_stream(status: int, body: bytes) -> bool:
    """Report whether an error says that this call cannot be streamed.

    Its ``param`` is ``stream``, or it is ``audio.format`` and the words are about streams: OpenAI streams
    audio as ``pcm16`` only, while Qwen-Omni streams nothing but ``wav``.
    """
    if status != 400:
        return False
    fields = _object(body) or {}
    error = _object(fields.get("error")) or fields
    param = _decoded(error.get("param"))
    return param == "stream" or (param == "audio.format" and b"stream" in body.lower())


def _kind_of(target: bytes) -> Kind | None:
    return _KINDS.get(api_kind(target.partition(b"?")[0]))


def _are_plain(fields: Members) -> bool:
    return not any(isinstance(fields.get(name), BodyPieces) for name in _LOOKED_AT)


def _plain(fields: Members, name: str) -> Raw | None:
    value = fields.get(name)
    return value if type(value) is Raw else None


def _is_false(value: Raw | None) -> bool:
    return value is None or bytes(value).strip() in _FALSE


def _object(data: Raw | bytes | None) -> dict[str, Raw] | None:
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=dict[str, Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        pass
    try:
        # Lone surrogates stay as they stand; what would have to be written anew (NaN) is not ours to touch.
        return decode_members(bytes(data), verbatim=True)
    except ValueError:
        return None


def _encoded(fields: dict[str, Raw]) -> bytes:
    return b"{%b}" % b",".join(b"%b:%b" % (encode_json(name), value) for name, value in fields.items())


def _in_pieces(fields: Members) -> BodyPieces:
    body = BodyPieces()
    before = b"{"
    for name, value in fields.items():
        start = b"%b%b:" % (before, encode_json(name))
        if isinstance(value, BodyPieces):
            body.append(start)
            body.extend(value)
        else:
            body.append(start + bytes(value))
        before = b","
    body.append(b"}")
    return body


def _decoded(data: Raw | None) -> object:
    if data is None:
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
