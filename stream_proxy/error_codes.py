"""Codes of the errors that the proxy reports itself, one for each kind of failure.

``docs/errors.md`` lists them for users, with what to do about each.
"""

from __future__ import annotations

from enum import Enum

UPSTREAM_ERROR = "upstream_error"
UPSTREAM_TIMEOUT = "upstream_timeout"
INVALID_REQUEST = "invalid_request_error"
INTERNAL_ERROR = "internal_error"
RATE_LIMIT = "rate_limit_error"
SERVER_ERROR = "server_error"

#: The types of statuses of ours; any other status is the client's fault.
_TYPES = {500: INTERNAL_ERROR, 502: UPSTREAM_ERROR, 503: SERVER_ERROR, 504: UPSTREAM_TIMEOUT}


class ErrorCode(Enum):
    """One failure: the ``code`` that clients see is the member's name in lower case.

    A member's value is its HTTP status and its meaning. Clients and dashboards match on codes, and a code has
    one status: add members, but never rename one or give it another status.
    """

    # On the way to the upstream
    UPSTREAM_DNS = 502, "The upstream's host name does not resolve."
    UPSTREAM_REFUSED = 502, "The upstream refused the TCP connection."
    UPSTREAM_UNREACHABLE = (
        502,
        "No connection to the upstream is possible, for example for lack of a route; or a connection "
        "in use is dead, because its peer acknowledges nothing any more.",
    )
    UPSTREAM_TLS = 502, "The TLS handshake with the upstream failed, or its certificate is not accepted."
    EGRESS_FAILED = 502, "The egress proxy cannot be connected to, or its response is unusable."
    EGRESS_REFUSED = 502, "The egress proxy rejected the request, or could not reach the upstream."
    SERVER_IS_OVERLOADED = 503, "`maxConnections` or `maxUpstreamWaiting` is reached."
    SERVER_STOPPING = 503, "The proxy stops, and `shutdownGraceSeconds` were too few for this response."
    CANCELLED = 503, "An operator cancelled the request."
    NO_CONNECTION_FREE = 504, "None of the `maxUpstreamConnections` became free within `timeoutSeconds`."

    # The upstream's response
    UPSTREAM_TIMEOUT = (504, "The upstream was not reached in `connectSeconds`, or sent nothing for long.")
    UPSTREAM_STALLED = (504, "The upstream sent no content within `firstEventSeconds`, or `stalledSeconds`.")
    UPSTREAM_CUT = (502, "The upstream closed the connection before its response was complete.")
    UPSTREAM_INCOMPLETE = (502, "The response ended properly, but the stream in it is unfinished.")
    UPSTREAM_MALFORMED = (502, "The response is not the HTTP, JSON, event stream or data that it should be.")
    UPSTREAM_ENCODING = 502, "The response has a content coding that the proxy cannot decode."
    UPSTREAM_STATUS = 502, "The upstream's status is not a success, and its body holds no error to pass on."
    UPSTREAM_ERROR = 502, "The upstream reported an error and gave neither a code nor a type."
    CONTENT_NOT_FOUND = 502, "The adapter found no text in the service's payloads."
    RESPONSE_TOO_LARGE = 502, "The aggregate is larger than `maxResponseBytes`."
    RESPONSE_TOO_MANY_VALUES = 502, "The response, or one event of it, has more than `maxResponseValues`."
    EVENT_TOO_LARGE = 502, "An event of the response is larger than `maxEventBytes`."
    DECODED_TOO_LARGE = (502, "The response decodes to more than `maxDecodedBytes`, or than any text would.")

    # The client's request
    INVALID_HTTP = 400, "The request is not valid HTTP/1.1."
    INVALID_HOST = 400, "The request has no `Host` header, more than one, or an invalid one."
    INVALID_TARGET = 400, "The request target is no path or URL, or leads above the upstream's URL."
    INVALID_HANDSHAKE = 400, "The client's WebSocket handshake is malformed."
    INVALID_JSON = 400, "The body for the adapter is not a JSON object."
    REQUEST_NESTED_TOO_DEEP = 400, "Arrays and objects of the body for the adapter are nested too deep."
    INVALID_TYPE = 400, "A parameter for the adapter has the wrong JSON type."
    INVALID_VALUE = 400, "A parameter for the adapter has a value that it cannot serve."
    MISSING_REQUIRED_PARAMETER = 400, "A parameter that the adapter needs is missing."
    INVALID_REQUEST_ERROR = 400, "The request cannot be served, for a reason that has no code of its own."
    INVALID_API_KEY = 401, "The request has no API key, or one that is not among `clientKeys`."
    FOREIGN_ORIGIN = 403, "A web page, or a name of this machine, may not spend the rule's key."
    MODEL_NOT_FOUND = 404, "The adapter serves no model of that name."
    UNKNOWN_URL = 404, "Nothing is served under that path."
    METHOD_NOT_SUPPORTED = 405, "The path is served, but not with that method."
    REQUEST_HEAD_TIMEOUT = 408, "The request head was not complete within `requestHeadSeconds`."
    REQUEST_BODY_TIMEOUT = 408, "The request body was not complete within `requestBodySeconds`."
    REQUEST_TOO_LARGE = 413, "The request body is larger than `maxRequestBytes`."
    REQUEST_TOO_MANY_VALUES = 413, "The request body has more JSON values than `maxRequestValues`."
    REQUEST_HEAD_TOO_LARGE = 431, "The request head is larger than `maxHeaderBytes`."
    TOO_MANY_HEADERS = 431, "The request has more header fields than `maxHeaderCount`."
    CLIENT_STALLED = 502, "The client read nothing of its response for `timeoutSeconds`."
    UPLOAD_STALLED = 504, "The client sent nothing more of its request body for `timeoutSeconds`."

    INTERNAL_ERROR = 500, "The proxy has a bug; its log has the traceback."

    def __init__(self, status: int, meaning: str) -> None:
        self.status = status
        self.meaning = meaning

    @property
    def code(self) -> str:
        """The ``code`` of the error object."""
        return self.name.lower()

    @property
    def is_final(self) -> bool:
        """Whether the same request would only fail, and cost, the same again: SDKs are told not to retry."""
        return self.status in (400, 413) or self in _TOO_LARGE

    @property
    def type(self) -> str:
        """The ``type`` of the error object: OpenAI's coarser class of errors."""
        return _TYPES.get(self.status, INVALID_REQUEST)


_TOO_LARGE = frozenset(
    {
        ErrorCode.RESPONSE_TOO_LARGE,
        ErrorCode.RESPONSE_TOO_MANY_VALUES,
        ErrorCode.EVENT_TOO_LARGE,
        ErrorCode.DECODED_TOO_LARGE,
    }
)
