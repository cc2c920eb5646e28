"""Compiled configuration of an adapter: the request to its service, and the reading of the response."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from msgspec import UnsetType

from stream_proxy.adapter.chunks import ChunkWriter
from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.expressions import ExpressionError
from stream_proxy.adapter.payloads import PayloadDecoder
from stream_proxy.adapter.reader import Reader
from stream_proxy.adapter.template import Context, Template, TemplateError, TextTemplate, helpers_of
from stream_proxy.adapter.translation import Translation
from stream_proxy.environment import expand, has_reference, variable
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import invalid_request
from stream_proxy.http.headers import HOP_BY_HOP, RawHeader, is_field_name
from stream_proxy.http.target import has_dots
from stream_proxy.http.url import UpstreamURL, parse_upstream_url
from stream_proxy.lenient_json import JSON, JSONObject, encode_json
from stream_proxy.limits import MAX_EVENT_BYTES, MAX_VALUES
from stream_proxy.observe.capture.secrets import is_telling

# Scheme and host, in which expressions are not allowed, and the rest.
_URL = re.compile(r"([^/?#]*(?://[^/?#]*)?)(.*)", re.DOTALL)
_TARGET = re.compile(r"[\x21-\x22\x24-\x7e]*")
_FIELD = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")
# Framing and connections are up to the proxy.
_RESERVED = HOP_BY_HOP | {b"content-length", b"host"}
# Shorter values of environment variables are no keys, and may be part of any text.
_SECRET_LENGTH = 8


class DialectError(ValueError):
    """A configuration that cannot be used; the message begins with the key at fault."""


@dataclass(frozen=True)
class ServiceRequest:
    """A request to a service."""

    method: bytes
    target: bytes
    headers: list[RawHeader]
    body: bytes | None


class Dialect:
    """The requests to one service and the reading of its responses.

    :param url: the rule's ``upstreamUrl``: the exact URL that is called, with ``{{expressions}}`` in its path
        and query, whose values are percent-encoded.
    :param environ: the variables for ``${NAME}`` in headers; by default the process's environment.
    :raises DialectError: the URL or the configuration cannot be used.
    """

    def __init__(self, url: str, config: AdapterConfig, environ: Mapping[str, str] | None = None) -> None:
        self.config = config
        self.models = tuple(dict.fromkeys(config.models))
        self.url, self._target = _service_url(url)
        self._said: set[str] = set()
        found: list[str] = []
        variables = os.environ if environ is None else environ
        self._headers = [
            (name, _header(name, value, variables, found)) for name, value in config.headers.items()
        ]
        self._secrets = [secret for secret in found if len(secret) >= _SECRET_LENGTH]
        given = config.request
        try:
            self._request = None if isinstance(given, UnsetType) else Template(given, "adapter.request")
            #: The reader of the service's payloads.
            self.reader = Reader(config)
        except TemplateError as error:
            raise DialectError(str(error)) from None
        except ExpressionError as error:
            raise DialectError(f"adapter.{error}") from None
        self._helpers = helpers_of([self._target, *(value for _, value in self._headers)])
        if self._request is not None:
            self._helpers |= self._request.helpers

    @property
    def secrets(self) -> list[str]:
        """Secrets in its header fields: values of variables, and what a field is named after."""
        named = [
            literal.strip().removeprefix("Bearer ").strip()
            for name, template in self._headers
            if is_telling(name.encode())
            for literal in template.literals
        ]
        return [*self._secrets, *(text for text in named if len(text) >= _SECRET_LENGTH)]

    def redacted(self, text: str) -> str:
        """Return `text` without values from the environment: services quote keys that they reject."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def unsaid(self, remarks: Iterable[str]) -> list[str]:
        """Return those of `remarks` that are made for the first time."""
        new = [remark for remark in remarks if remark not in self._said]
        self._said.update(new)
        return new

    def request(self, call: JSONObject, client: Sequence[RawHeader]) -> ServiceRequest:
        """Return the request to the service for an OpenAI chat request.

        :param client: the header fields of the client's request.
        :raises APIError: 400, a value of the request would lead to another path of the service.
        """
        config = self.config
        context = Context(call, self._helpers, client)
        body = {**call, "stream": True} if self._request is None else self._request.fill(context)
        assert isinstance(body, dict)  # as the configured request is
        target = self._target.text(context, _percent)
        if self._target.expressions and has_dots(target.encode("ascii")):
            raise invalid_request(
                "A value of the request would make a . or .. in the service's path.", ErrorCode.INVALID_VALUE
            )
        accept = b"application/x-ndjson" if config.format == "ndjson" else b"text/event-stream"
        headers: dict[bytes, tuple[bytes, bytes]] = {b"accept": (b"Accept", accept)}
        headers[b"accept-encoding"] = (b"Accept-Encoding", b"identity")
        authorization = next((value for name, value in client if name.lower() == b"authorization"), None)
        if config.forward_authorization and authorization is not None:
            headers[b"authorization"] = (b"Authorization", authorization)
        # With Accept the usual pair for event streams, also with GET: some services insist on both.
        headers[b"content-type"] = (b"Content-Type", b"application/json")
        for name, template in self._headers:
            field = name.encode("ascii")
            headers[field.lower()] = (field, _field_value(template.text(context)))
        if config.method == "GET":
            query = urlencode([(key, _query_value(value)) for key, value in body.items()], errors="replace")
            if query:
                target += ("&" if "?" in target else "?") + query
            return ServiceRequest(b"GET", target.encode("ascii"), list(headers.values()), None)
        return ServiceRequest(b"POST", target.encode("ascii"), list(headers.values()), encode_json(body))

    def translation(
        self,
        media: bytes,
        identity: tuple[str, int, str],
        *,
        include_usage: bool,
        max_bytes: int,
        stream: bool = True,
        max_event_bytes: int = MAX_EVENT_BYTES,
        max_values: int = MAX_VALUES,
    ) -> Translation:
        """Return the translation of one response.

        :param media: its media type, in lower case.
        :param identity: the completion's ``id``, ``created`` and ``model``.
        :param include_usage: whether the chunks report the usage.
        :param max_bytes: how large the response may be if it is not a stream.
        :param stream: the chunks go out as they are made; otherwise texts come at the end, when none is
            replaced any more.
        :param max_event_bytes: how large one payload may be.
        :param max_values: how many values the response may have.
        """
        config = self.config
        return Translation(
            self.reader,
            PayloadDecoder(
                config.format,
                media,
                max_event_bytes,
                text=config.payload == "text",
                keep_blanks=config.keep_blanks,
            ),
            ChunkWriter(
                identity,
                cumulative=config.mode == "cumulative",
                include_usage=include_usage,
                most_held=None if stream else max_bytes,
            ),
            max_values,
        )


def service_origin(url: str) -> str:
    """Return scheme, host and port of a service's URL, for the log.

    :raises DialectError: the URL cannot be used.
    """
    return _service_url(url)[0].origin


def _service_url(url: str) -> tuple[UpstreamURL, TextTemplate]:
    match = _URL.fullmatch(url.strip())
    assert match is not None  # the pattern matches any text
    base, path = _base_url(match[1]), match[2]
    try:
        target = TextTemplate(path if path.startswith("/") else "/" + path, "upstreamUrl")
    except TemplateError as error:
        raise DialectError(str(error)) from None
    if any("#" in literal for literal in target.literals):
        raise DialectError("upstreamUrl: must not have a fragment")
    if not all(_TARGET.fullmatch(literal) for literal in target.literals):
        raise DialectError("upstreamUrl: has characters that must be percent-encoded")
    return base, target


def _base_url(url: str) -> UpstreamURL:
    try:
        return parse_upstream_url(url)
    except ValueError as error:
        raise DialectError(f"upstreamUrl: {error}") from None


def _header(name: str, value: str, environ: Mapping[str, str], secrets: list[str]) -> TextTemplate:
    place = f"adapter.headers.{name}"
    if not is_field_name(name):
        raise DialectError(f"{place}: is no name of a header field")
    if name.lower().encode("ascii") in _RESERVED:
        raise DialectError(f"{place}: is set by the proxy itself")

    def secret(name: str) -> str:
        found = variable(name, environ)
        if not _FIELD.fullmatch(found):
            raise ValueError(f"the environment's {name} has characters that no header may hold")
        secrets.append(found)
        return found

    if not _FIELD.fullmatch(value):
        raise DialectError(f"{place}: has characters that no header may hold")
    try:
        template = TextTemplate(value, place)
    except TemplateError as error:
        raise DialectError(str(error)) from None
    if any(has_reference(expression.source) for expression in template.expressions):
        raise DialectError(f"{place}: a variable of the environment cannot stand inside of {{{{ }}}}")
    try:
        return template.with_literals(lambda literal: expand(literal, secret))
    except ValueError as error:
        raise DialectError(f"{place}: {error}") from None


def _field_value(text: str) -> bytes:
    # A line break in a value of the client's would begin another field (RFC 9110 section 5.5).
    return _CONTROLS.sub(" ", text).strip().encode("utf-8", "replace")


def _percent(text: str) -> str:
    return quote(text, safe="", errors="replace")


def _query_value(value: JSON) -> str:
    return value if isinstance(value, str) else encode_json(value).decode()
