"""The mock's web resource: which answer, and in which mode."""

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

from stream_proxy.http.upgrade import wants_websocket
from stream_proxy.mock.chat import chunks, completion
from stream_proxy.mock.checks import missing, optional, streamed
from stream_proxy.mock.control import Control, read_control, spoil, spoil_stream
from stream_proxy.mock.delivery import Delivery
from stream_proxy.mock.embeddings import embeddings, model, models
from stream_proxy.mock.files import FileStore
from stream_proxy.mock.realtime import Dialogue
from stream_proxy.mock.responses import events, failed, response
from stream_proxy.mock.service import answer, is_service, refusal
from stream_proxy.mock.speaker import Echo, Speaker
from stream_proxy.mock.websocket import serve
from stream_proxy.mock.wire import ApiError, JSONObject, Reply, decode_object, digest, encode, sse

_ANY = r"(?:/.*)?"
_BASE = r"(?:(?:/.*)?/(?:v\d+|openai))?"
_DEPLOYMENT = re.compile(r"/deployments/([^/]+)/")


@dataclass(frozen=True)
class Inbound:
    """A request, as far as an endpoint looks at it."""

    content: BinaryIO
    content_type: str
    accept: str
    query: dict[bytes, list[bytes]]
    path: str
    name: str
    """What the path names at its end: a model, a file."""
    control: Control

    def body(self) -> JSONObject:
        """The JSON body, with a model (the deployment in the path stands for one).

        :raises ApiError: 400 for anything else.
        """
        body = decode_object(self.content)
        deployment = _DEPLOYMENT.search(self.path)
        if deployment is not None:
            body.setdefault("model", unquote(deployment[1]))
        if not optional(body, "model", str):
            raise missing("model")
        return body


Endpoint: TypeAlias = Callable[["MockUpstream", Inbound], Reply]


class MockUpstream(Resource):
    """An OpenAI-compatible API; the package tells what it answers. It takes every path below where it hangs.

    Under a site that parses forms (`mock_site`'s does not) uploads are held in memory meanwhile.

    :param reactor: Keeps the time of delays and paces.
    """

    isLeaf = True

    def __init__(self, reactor: IReactorTime) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self._reactor = reactor
        self._files = FileStore()

    def render(self, request: Request) -> int:
        """Answer `request`, at its own pace and only while its client is there."""
        control = Control()
        try:
            control = read_control(request.getHeader)
            if (error := control.error()) is not None:
                raise error
            speaker = _speaker(request, control)
            if speaker is not None:
                serve(self._reactor, request, control, speaker, self._headers(request))
                return NOT_DONE_YET
            reply = self._answer(request, control)
        except ApiError as refused:
            reply = refusal(refused) if is_service(request.path) else refused.reply()
        reply = replace(reply, headers=(*self._headers(request), *reply.headers))
        Delivery(self._reactor, request, reply, control.delay, control.pace)
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

    def _answer(self, request: Request, control: Control) -> Reply:
        method = request.method.decode("latin-1")
        path = request.path.decode("latin-1").rstrip("/")
        for pattern, endpoints in _ROUTES:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            endpoint = endpoints.get("GET" if method == "HEAD" else method)
            if endpoint is None:
                raise ApiError(
                    405,
                    f"Not allowed to {method} on {path}.",
                    code="method_not_supported",
                    headers=(("Allow", ", ".join(endpoints)),),
                )
            if control.fail == "failed" and endpoint is not MockUpstream._responses:
                raise ApiError(400, "Only Responses can be made to fail this way.", param="X-Mock-Fail")
            assert request.content is not None
            name = unquote(match.groupdict().get("name", ""))
            content_type = request.getHeader("content-type") or ""
            accept = ",".join(request.requestHeaders.getRawHeaders("accept", []))
            inbound = Inbound(request.content, content_type, accept, request.args, path, name, control)
            reply = endpoint(self, inbound)
            return spoil(control, reply) if isinstance(reply.body, bytes) else reply
        raise ApiError(404, f"Invalid URL ({method} {path or '/'})")

    def _chat(self, inbound: Inbound) -> Reply:
        control = inbound.control
        body = inbound.body()
        stream = streamed(body, control)
        whole = completion(body, control.words)
        if not stream:
            return Reply(encode(whole))
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
        return spoil_stream(control, frames(), lambda _: sse(encode(control.failure().envelope()), event))

    def _responses(self, inbound: Inbound) -> Reply:
        control = inbound.control
        body = inbound.body()
        stream = streamed(body, control)
        whole = response(body, control.words)
        error = control.failure()
        summary = None if error.code is None else {"code": error.code, "message": error.message}
        if not stream:
            if control.fail == "failed" and summary is None:
                return Reply(encode(failed(whole, None)))
            return Reply(encode(whole))
        options = body.get("stream_options") or {}

        def failure(number: int) -> bytes:
            if control.fail == "error-chunk":
                return sse(encode(error.envelope()))
            kind = "error" if control.fail == "error-event" else "response.failed"
            told = (
                {"code": error.code, "message": error.message, "param": None}
                if kind == "error"
                else {"response": failed(whole, summary)}
            )
            return sse(encode({"type": kind, "sequence_number": number, **told}), kind)

        parts = events(whole, obfuscate=options.get("include_obfuscation") is not False)
        return spoil_stream(control, (sse(encode(part), part["type"]) for part in parts), failure)

    def _service(self, inbound: Inbound) -> Reply:
        return answer(inbound.content, inbound.content_type, inbound.accept, inbound.control)

    def _embeddings(self, inbound: Inbound) -> Reply:
        return Reply(encode(embeddings(inbound.body())))

    def _models(self, inbound: Inbound) -> Reply:
        return Reply(encode(models()))

    def _model(self, inbound: Inbound) -> Reply:
        return Reply(encode(model(inbound.name)))

    def _upload(self, inbound: Inbound) -> Reply:
        return Reply(encode(self._files.upload(inbound.content, inbound.content_type)))

    def _list_files(self, inbound: Inbound) -> Reply:
        purposes = inbound.query.get(b"purpose", [])
        return Reply(encode(self._files.all(purposes[0].decode("utf-8", "replace") if purposes else None)))

    def _file(self, inbound: Inbound) -> Reply:
        return Reply(encode(self._files.get(inbound.name)[0]))

    def _file_content(self, inbound: Inbound) -> Reply:
        made, content = self._files.get(inbound.name)
        name = re.sub(r'[^ -~]|["\\]', "_", made["filename"])
        return Reply(
            content,
            content_type="application/octet-stream",
            headers=(("Content-Disposition", f'attachment; filename="{name}"'),),
        )

    def _delete_file(self, inbound: Inbound) -> Reply:
        return Reply(encode(self._files.delete(inbound.name)))


def _speaker(request: Request, control: Control) -> Speaker | None:
    """Who speaks at a WebSocket's path; `None` at any other.

    :raises ApiError: 426 for what is no WebSocket there, 400 where the model is not named.
    """
    kind = request.path.rstrip(b"/").rpartition(b"/")[2]
    if kind not in (b"realtime", b"echo"):
        return None
    headers = [
        (name, value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values
    ]
    if not wants_websocket(request.method, headers):
        upgrade = (("Upgrade", "websocket"),)
        raise ApiError(426, "Here is a WebSocket: send its handshake.", headers=upgrade)
    if kind == b"echo":
        return Echo()
    named = request.args.get(b"model") or request.args.get(b"deployment")
    if not named:
        raise missing("model")
    return Dialogue(named[0].decode("utf-8", "replace"), control.words)


_Methods: TypeAlias = dict[str, Endpoint]


def _route(pattern: str, endpoints: _Methods) -> tuple[re.Pattern[str], _Methods]:
    return re.compile(pattern), endpoints


_ROUTES = (
    _route(_ANY + "/stream", {"POST": MockUpstream._service}),
    _route(_ANY + "/chat/completions", {"POST": MockUpstream._chat}),
    _route(_ANY + "/responses", {"POST": MockUpstream._responses}),
    _route(_ANY + "/embeddings", {"POST": MockUpstream._embeddings}),
    _route(_BASE + "/models", {"GET": MockUpstream._models}),
    _route(_BASE + "/models/(?P<name>.+)", {"GET": MockUpstream._model}),
    _route(_BASE + "/files", {"GET": MockUpstream._list_files, "POST": MockUpstream._upload}),
    _route(
        _BASE + "/files/(?P<name>[^/]+)", {"GET": MockUpstream._file, "DELETE": MockUpstream._delete_file}
    ),
    _route(_BASE + "/files/(?P<name>[^/]+)/content", {"GET": MockUpstream._file_content}),
)


class _QuietSite(Site):
    def log(self, request: HTTPRequest) -> None:
        """Say nothing: the access log would print queries."""


def mock_site(reactor: IReactorTime) -> Site:
    """A site that serves a `MockUpstream` of its own, leaves uploads unparsed and logs no request."""
    return _QuietSite(MockUpstream(reactor), parsePOSTFormSubmission=False, reactor=reactor)  # type: ignore[no-untyped-call,unused-ignore]
