"""Web resource of the mock: the routes, and the response for each in either mode."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, TypeAlias
from urllib.parse import unquote

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from stream_proxy.http.headers import raw_headers
from stream_proxy.http.upgrade import wants_websocket
from stream_proxy.mock.chat import chunks, completion
from stream_proxy.mock.checks import optional, wants_stream
from stream_proxy.mock.control import Control, failing_stream, read_control, with_failure
from stream_proxy.mock.delivery import Delivery
from stream_proxy.mock.embeddings import embeddings, model, models
from stream_proxy.mock.files import FileStore
from stream_proxy.mock.messages import Echo, MessageHandler
from stream_proxy.mock.realtime.session import RealtimeSession
from stream_proxy.mock.responses import events, failed, response
from stream_proxy.mock.service import error_response, is_service, respond
from stream_proxy.mock.websocket import serve
from stream_proxy.mock.wire import (
    HTTPResponse,
    JSONObject,
    MockError,
    decode_object,
    digest,
    encode,
    invalid,
    missing,
    sse,
)

_ANY = r"(?:/.*)?"
_BASE = r"(?:(?:/.*)?/(?:v\d+|openai))?"
_DEPLOYMENT = re.compile(r"/deployments/([^/]+)/")


@dataclass(frozen=True)
class Inbound:
    """The parts of a request that endpoints use."""

    content: BinaryIO
    content_type: str
    accept: str
    query: dict[bytes, list[bytes]]
    path: str
    name: str
    """The model or file that the path ends with."""
    control: Control

    def body(self) -> JSONObject:
        """Return the JSON body, with a model, which may also be the deployment in the path.

        :raises MockError: 400 for anything else.
        """
        body = decode_object(self.content)
        deployment = _DEPLOYMENT.search(self.path)
        if deployment is not None:
            body.setdefault("model", unquote(deployment[1]))
        if not optional(body, "model", str):
            raise missing("model")
        return body


Endpoint: TypeAlias = Callable[["MockUpstream", Inbound], HTTPResponse]


class MockUpstream(Resource):
    """An OpenAI-compatible API on every path below its own; the package's docstring describes it.

    A site that parses forms would hold uploads in memory; that of `mock_site` does not.

    :param reactor: times delays and paces.
    :param streams_only: refuses every call without a stream, as ``X-Mock-Require-Stream`` does for one.
    """

    isLeaf = True

    def __init__(self, reactor: IReactorTime, *, streams_only: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self._reactor = reactor
        self._streams_only = streams_only
        self._files = FileStore()

    def render(self, request: Request) -> int:
        """Respond at the pace that the request asks for, until its client leaves."""
        control = Control()
        try:
            control = read_control(request.getHeader)
            if self._streams_only:
                control = replace(control, require_stream=True)
            if (error := control.error()) is not None:
                raise error
            handler = _message_handler(request, control)
            if handler is not None:
                serve(self._reactor, request, control, handler, self._headers(request))
                return NOT_DONE_YET
            http_response = self._respond(request, control)
        except MockError as failure:
            http_response = error_response(failure) if is_service(request.path) else failure.response()
        headers = (*self._headers(request), *http_response.headers)
        http_response = replace(http_response, headers=headers)
        Delivery(self._reactor, request, http_response, control.delay, control.pace)
        return NOT_DONE_YET

    def _headers(self, request: Request) -> tuple[tuple[str, str], ...]:
        identity = digest(request.method.decode("latin-1"), request.uri.decode("latin-1"))
        named = ("x-request-id", f"req_{identity[:32]}")
        if is_service(request.path):
            return (named,)
        return (
            named,
            ("openai-processing-ms", str(100 + int(identity[:2], 16))),
            ("openai-version", "2020-10-01"),
            ("openai-organization", "mock"),
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-limit-tokens", "2000000"),
            ("x-ratelimit-remaining-requests", "9999"),
            ("x-ratelimit-remaining-tokens", "1999000"),
            ("x-ratelimit-reset-requests", "6ms"),
            ("x-ratelimit-reset-tokens", "30ms"),
        )

    def _respond(self, request: Request, control: Control) -> HTTPResponse:
        method = request.method.decode("latin-1")
        path = request.path.decode("latin-1").rstrip("/")
        for pattern, endpoints in _ROUTES.items():
            match = re.fullmatch(pattern, path)
            if match is None:
                continue
            endpoint = endpoints.get("GET" if method == "HEAD" else method)
            if endpoint is None:
                raise MockError(
                    405,
                    f"Not allowed to {method} on {path}.",
                    code="method_not_supported",
                    headers=(("Allow", ", ".join(endpoints)),),
                )
            if control.fail == "failed" and endpoint is not MockUpstream._responses:
                raise invalid("X-Mock-Fail", "Only Responses can be made to fail this way.")
            assert request.content is not None
            name = unquote(match.groupdict().get("name", ""))
            content_type = request.getHeader("content-type") or ""
            accept = ",".join(request.requestHeaders.getRawHeaders("accept", []))
            inbound = Inbound(request.content, content_type, accept, request.args, path, name, control)
            made = endpoint(self, inbound)
            return with_failure(control, made) if isinstance(made.body, bytes) else made
        raise MockError(404, f"Invalid URL ({method} {path or '/'})")

    def _chat(self, inbound: Inbound) -> HTTPResponse:
        control = inbound.control
        body = inbound.body()
        stream = wants_stream(body, control)
        whole = completion(body, control.words)
        if not stream:
            return HTTPResponse(encode(whole))
        options = body.get("stream_options") or {}
        parts = chunks(
            whole,
            include_usage=options.get("include_usage") is True,
            obfuscate=options.get("include_obfuscation") is not False,
        )

        def frames() -> Iterator[bytes]:
            for part in parts:
                yield sse(encode(part))
            yield sse(b"[DONE]")

        event = "error" if control.fail == "error-event" else None
        return failing_stream(control, frames(), lambda _: sse(encode(control.failure().envelope()), event))

    def _responses(self, inbound: Inbound) -> HTTPResponse:
        control = inbound.control
        body = inbound.body()
        stream = wants_stream(body, control)
        whole = response(body, control.words)
        error = control.failure()
        summary = None if error.code is None else {"code": error.code, "message": error.message}
        if not stream:
            if control.fail == "failed" and summary is None:
                return HTTPResponse(encode(failed(whole, None)))
            return HTTPResponse(encode(whole))
        options = body.get("stream_options") or {}

        def failure(number: int) -> bytes:
            if control.fail == "error-chunk":
                return sse(encode(error.envelope()))
            kind = "error" if control.fail == "error-event" else "response.failed"
            details = (
                {"code": error.code, "message": error.message, "param": None}
                if kind == "error"
                else {"response": failed(whole, summary)}
            )
            return sse(encode({"type": kind, "sequence_number": number, **details}), kind)

        parts = events(whole, obfuscate=options.get("include_obfuscation") is not False)
        return failing_stream(control, (sse(encode(part), part["type"]) for part in parts), failure)

    def _service(self, inbound: Inbound) -> HTTPResponse:
        return respond(inbound.content, inbound.content_type, inbound.accept, inbound.control)

    def _embeddings(self, inbound: Inbound) -> HTTPResponse:
        return HTTPResponse(encode(embeddings(inbound.body())))

    def _models(self, inbound: Inbound) -> HTTPResponse:
        return HTTPResponse(encode(models()))

    def _model(self, inbound: Inbound) -> HTTPResponse:
        return HTTPResponse(encode(model(inbound.name)))

    def _upload(self, inbound: Inbound) -> HTTPResponse:
        return HTTPResponse(encode(self._files.upload(inbound.content, inbound.content_type)))

    def _list_files(self, inbound: Inbound) -> HTTPResponse:
        purposes = inbound.query.get(b"purpose", [])
        purpose = purposes[0].decode("utf-8", "replace") if purposes else None
        return HTTPResponse(encode(self._files.all(purpose)))

    def _file(self, inbound: Inbound) -> HTTPResponse:
        return HTTPResponse(encode(self._files.get(inbound.name)[0]))

    def _file_content(self, inbound: Inbound) -> HTTPResponse:
        made, content = self._files.get(inbound.name)
        name = re.sub(r'[^ -~]|["\\]', "_", made["filename"])
        return HTTPResponse(
            content,
            content_type="application/octet-stream",
            headers=(("Content-Disposition", f'attachment; filename="{name}"'),),
        )

    def _delete_file(self, inbound: Inbound) -> HTTPResponse:
        return HTTPResponse(encode(self._files.delete(inbound.name)))


def _message_handler(request: Request, control: Control) -> MessageHandler | None:
    """Return the handler for a WebSocket's path, or `None` for any other path.

    :raises MockError: 426 without a WebSocket handshake, 400 without a model.
    """
    kind = request.path.rstrip(b"/").rpartition(b"/")[2]
    if kind not in (b"realtime", b"echo"):
        return None
    headers = raw_headers(request.requestHeaders.getAllRawHeaders())
    if not wants_websocket(request.method, headers):
        upgrade = (("Upgrade", "websocket"),)
        raise MockError(426, "Here is a WebSocket: send its handshake.", headers=upgrade)
    if kind == b"echo":
        return Echo()
    named = request.args.get(b"model") or request.args.get(b"deployment")
    if not named:
        raise missing("model")
    return RealtimeSession(named[0].decode("utf-8", "replace"), control.words)


_ROUTES: dict[str, dict[str, Endpoint]] = {
    _ANY + "/stream": {"POST": MockUpstream._service},
    _ANY + "/chat/completions": {"POST": MockUpstream._chat},
    _ANY + "/responses": {"POST": MockUpstream._responses},
    _ANY + "/embeddings": {"POST": MockUpstream._embeddings},
    _BASE + "/models": {"GET": MockUpstream._models},
    _BASE + "/models/(?P<name>.+)": {"GET": MockUpstream._model},
    _BASE + "/files": {"GET": MockUpstream._list_files, "POST": MockUpstream._upload},
    _BASE + "/files/(?P<name>[^/]+)": {"GET": MockUpstream._file, "DELETE": MockUpstream._delete_file},
    _BASE + "/files/(?P<name>[^/]+)/content": {"GET": MockUpstream._file_content},
}


class _QuietSite(Site):
    def log(self, request: HTTPRequest) -> None:
        """Log nothing: Twisted's access log would print queries, which may hold keys."""


def mock_site(reactor: IReactorTime, *, streams_only: bool = False, resource: Resource | None = None) -> Site:
    """Return a site for a new `MockUpstream`, or another resource, which leaves uploads unparsed.

    It logs no request.
    """
    served = MockUpstream(reactor, streams_only=streams_only) if resource is None else resource
    return _QuietSite(served, parsePOSTFormSubmission=False, reactor=reactor)  # type: ignore[no-untyped-call,unused-ignore]
