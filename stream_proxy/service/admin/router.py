"""Resource of the admin port: what is served under which path, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, cast
from urllib.parse import parse_qsl

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from stream_proxy.downstream.request import request_fields, when_gone
from stream_proxy.downstream.request_body import RequestBody
from stream_proxy.downstream.response import start_response
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, internal_error, invalid_request, proxy_error
from stream_proxy.flows.body_collection import BodyCollection
from stream_proxy.http.headers import RawHeader
from stream_proxy.limits import Limits
from stream_proxy.request_log import RequestLog
from stream_proxy.service.admin.access import CHALLENGE, AdminAccess, Guard

JSON = b"application/json"
#: Bounds of a request's body, whose sender may take as many seconds for it.
_BODY = Limits(max_request_bytes=65_536, timeout_seconds=10.0, request_body_seconds=10.0)
#: Members of a query that are read.
_MOST_MEMBERS = 20

#: Fields of every response: nothing but the page's own files runs in it or is loaded by it, nobody frames,
#: embeds or stores it.
_FIELDS: tuple[RawHeader, ...] = (
    (
        b"Content-Security-Policy",
        b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Cache-Control", b"no-store"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Referrer-Policy", b"same-origin"),
)


class Visit:
    """One request on the admin port, which is answered once, now or later.

    :param below: the path below that of the route, where this ends with a slash.
    """

    def __init__(self, request: Request, below: str) -> None:
        self.request = request
        self.below = below
        #: The whole body of a POST.
        self.body = b""
        #: Called once if the client leaves before the answer is whole.
        self.gone: Callable[[], None] | None = None
        when_gone(request, self._left)

    def _left(self, failure: Failure) -> None:
        gone, self.gone = self.gone, None
        if gone is not None:
            gone()

    @property
    def is_open(self) -> bool:
        """Whether the client waits for the answer, or for more of it."""
        return self.request.channel is not None and not self.request.finished

    @property
    def headers(self) -> list[RawHeader]:
        """The fields of the request."""
        return request_fields(self.request)

    @property
    def query(self) -> dict[str, str]:
        """The members of the query, the last of a name; of too many none."""
        query = self.request.uri.partition(b"?")[2].decode("latin-1")
        try:
            return dict(parse_qsl(query, max_num_fields=_MOST_MEMBERS))
        except ValueError:
            return {}

    def start(self, status: int, content_type: bytes, headers: Iterable[RawHeader] = ()) -> None:
        """Set the head of an answer that is written piece by piece, to :attr:`request`."""
        start_response(self.request, status, None, [(b"Content-Type", content_type), *_FIELDS, *headers])

    def send(
        self, body: bytes, content_type: bytes = JSON, status: int = 200, headers: Iterable[RawHeader] = ()
    ) -> None:
        """Send a whole answer, if the client still waits."""
        if self.is_open:
            self.gone = None
            self.start(status, content_type, [*headers, (b"Content-Length", b"%d" % len(body))])
            self.request.write(body)
            self.request.finish()

    def json(self, value: object, status: int = 200) -> None:
        """Send `value` as JSON."""
        self.send(msgspec.json.encode(value), status=status)

    def fail(self, error: APIError, headers: Iterable[RawHeader] = ()) -> None:
        """Send an error."""
        self.send(error.envelope(), status=error.status, headers=headers)


#: What answers a request, now or later.
Answer = Callable[[Visit], None]


class _Route(NamedTuple):
    answer: Answer
    guard: Guard


class AdminResource(Resource):
    """Everything on the admin port.

    :param access: decides who is answered; may be replaced.
    :param log: logs bugs.
    """

    isLeaf = True
    #: Bodies are only read after a request was found good.
    streamsUploads = True

    def __init__(self, clock: IReactorTime, access: AdminAccess, log: RequestLog) -> None:
        super().__init__()
        self.access = access
        #: Answers whoever has no key, where a browser shows the answer to a person.
        self.unauthorized: Callable[[Visit, APIError], None] | None = None
        self._clock = clock
        self._log = log
        self._routes: dict[str, dict[bytes, _Route]] = {}

    def get(self, path: str, answer: Answer, guard: Guard = Guard.KEY) -> None:
        """Serve a path; one that ends with a slash stands for all below it that have no route of their own.

        HEAD is answered by the same function, whose body is left out.
        """
        self._routes.setdefault(path, {})[b"GET"] = _Route(answer, guard)

    def post(self, path: str, answer: Answer, guard: Guard = Guard.KEY) -> None:
        """Take POSTs to a path, as in :meth:`get`; their bodies have at most 64 KiB."""
        self._routes.setdefault(path, {})[b"POST"] = _Route(answer, guard)

    def render(self, request: Request) -> int:
        """Answer `request`, or refuse it."""
        path, below = self._find(request.path)
        visit = Visit(request, below)
        try:
            self._render(visit, request.method, self._routes.get(path))
        except Exception:
            self._bug(visit, Failure())
        return NOT_DONE_YET

    def _find(self, path: bytes) -> tuple[str, str]:
        text = path.decode("latin-1")
        if text in self._routes:
            return text, ""
        # The routes are few; a path may have thousands of slashes.
        folders = (each for each in self._routes if each.endswith("/") and each != "/")
        start = max(filter(text.startswith, folders), key=len, default="")
        return start, text[len(start) :] if start else ""

    def _render(self, visit: Visit, method: bytes, routes: dict[bytes, _Route] | None) -> None:
        route = (routes or {}).get(b"GET" if method == b"HEAD" else method)
        guard = Guard.PLACE if route is None else route.guard
        if routes is not None and all(each.guard is Guard.OPEN for each in routes.values()):
            guard = Guard.OPEN
        error = self.access.refusal(guard, method, visit.headers)
        if error is not None:
            self._refuse(visit, error)
        elif routes is None:
            visit.fail(invalid_request("Nothing is served here.", ErrorCode.UNKNOWN_URL))
        elif route is None:
            allowed = [*routes, *([b"HEAD"] if b"GET" in routes else [])]
            visit.fail(
                invalid_request("This path is not served with that method.", ErrorCode.METHOD_NOT_SUPPORTED),
                [(b"Allow", b", ".join(allowed))],
            )
        elif method == b"POST":
            self._collect(visit, route.answer)
        else:
            route.answer(visit)

    def _refuse(self, visit: Visit, error: APIError) -> None:
        if error.status != 401:
            visit.fail(error)
        elif self.unauthorized is not None:
            self.unauthorized(visit, error)
        else:
            visit.fail(error, CHALLENGE)

    def _collect(self, visit: Visit, answer: Answer) -> None:
        """Call `answer` once the body is in; end a request whose body is too large or too slow."""

        def whole(body: object, scan: object) -> None:
            visit.gone = None
            visit.body = bytes(cast(bytes, body))
            if visit.is_open:
                answer(visit)

        def failed(failure: Failure) -> None:
            collection.stop()
            visit.gone = None
            if isinstance(failure.value, APIError):
                visit.fail(failure.value)
            else:
                self._bug(visit, failure)

        body = visit.request.body  # type: ignore[attr-defined]
        assert isinstance(body, RequestBody)
        collection = BodyCollection(self._clock, body, _BODY, whole, failed, scanned=False)
        visit.gone = collection.stop
        collection.start()

    def _bug(self, visit: Visit, failure: Failure) -> None:
        self._log.bug(failure)
        if visit.is_open and not visit.request.startedWriting:
            visit.fail(internal_error())
        elif visit.request.channel is not None:
            visit.request.channel.loseConnection()


def answer_later(visit: Visit, coming: Deferred[bytes | None], missing: str) -> None:
    """Send JSON when it comes; ``None`` is a 404 that says that it is `missing`, a failure a 502."""

    def came(body: bytes | None) -> None:
        visit.gone = None
        if body is None:
            visit.fail(invalid_request(missing, ErrorCode.UNKNOWN_URL))
        else:
            visit.send(body)

    def failed(failure: Failure) -> None:
        visit.fail(proxy_error(ErrorCode.UPSTREAM_UNREACHABLE, "The worker does not answer."))

    visit.gone = coming.cancel
    coming.addCallbacks(came, failed)
