"""Errors as clients see them, and the constructor of every error that the proxy reports itself.

The envelope is that of the OpenAI API reference, ``{"error": {"message", "type", "param", "code"}}``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypedDict, TypeVar, Unpack

from stream_proxy.error_codes import INVALID_REQUEST, RATE_LIMIT, SERVER_ERROR, ErrorCode

_Error = TypeVar("_Error", bound=BaseException)


class IncompleteStreamError(RuntimeError):
    """A request for a result that the stream has not delivered yet."""


class ConfigError(Exception):
    """An unusable configuration; each line of the text names file, field and problem of one mistake."""


class APIError(Exception):
    """A failed call, as the client sees it.

    :param status: the HTTP status, 400 to 599.
    :param message: the cause, in words that a user can act on, without secrets.
    :param type: OpenAI's class of error, like ``"upstream_error"``.
    :param param: the request field at fault, when known.
    :param code: the code of :class:`~stream_proxy.error_codes.ErrorCode`, or the upstream's own; by default
        `type` is repeated.
    :param should_retry: the value of an ``x-should-retry`` header, which SDKs obey; ``None`` for no header.
    :param for_log: the text for the log where `message` may quote a key or a prompt.
    :param retry_after: seconds after which a retry may succeed, for ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        type: str,
        *,
        param: str | None = None,
        code: str | int | None = None,
        should_retry: bool | None = None,
        for_log: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code: str | int = type if code is None else code
        self.should_retry = should_retry
        self.retry_after = retry_after
        self.for_log = message if for_log is None else for_log

    def envelope(self) -> bytes:
        """Return the response body: JSON with exactly the four keys of OpenAI's error object."""
        body = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        # UTF-8 cannot hold a lone surrogate; backslashreplace writes the JSON escape that it came as.
        return json.dumps({"error": body}, ensure_ascii=False).encode("utf-8", "backslashreplace")

    def redacted(self, replace: Callable[[str], str]) -> APIError:
        """Return the same error with `replace` applied to every text in it."""
        return APIError(
            self.status,
            replace(self.message),
            replace(self.type),
            param=None if self.param is None else replace(self.param),
            code=replace(self.code) if isinstance(self.code, str) else self.code,
            should_retry=self.should_retry,
            for_log=replace(self.for_log),
            retry_after=self.retry_after,
        )


class _Details(TypedDict, total=False):
    param: str | None
    should_retry: bool | None
    for_log: str | None
    retry_after: int | None


def proxy_error(code: ErrorCode, message: str, **details: Unpack[_Details]) -> APIError:
    """Return an error of ours, with the status and type of its `code`; `details` are those of an APIError."""
    if code.is_final:
        details.setdefault("should_retry", False)
    return APIError(code.status, message, code.type, code=code.code, **details)


# Errors of the upstream


def upstream_error(
    message: str, code: ErrorCode = ErrorCode.UPSTREAM_ERROR, *, should_retry: bool | None = None
) -> APIError:
    """Return a 502: the upstream could not be reached, or its response is unusable."""
    return proxy_error(code, message, should_retry=should_retry)


def upstream_timeout(message: str) -> APIError:
    """Return a 504: the upstream was silent for too long."""
    return proxy_error(ErrorCode.UPSTREAM_TIMEOUT, message)


def upstream_unanswered(seconds: float) -> APIError:
    """Return a 504: the head of the upstream's response did not come."""
    return upstream_timeout(
        f"The upstream did not answer within {seconds:g} seconds; ask for less, or raise timeoutSeconds."
    )


def upstream_silent(seconds: float, who: str = "upstream") -> APIError:
    """Return a 504: nothing came from the upstream, or from the adapter's service."""
    return upstream_timeout(
        f"The {who} sent nothing for {seconds:g} seconds; ask for less, or raise timeoutSeconds."
    )


def handshake_unanswered(origin: str, seconds: float) -> APIError:
    """Return a 504: the upstream did not answer a WebSocket handshake."""
    return upstream_timeout(f"{origin} did not answer the WebSocket handshake within {seconds:g} seconds.")


def handshake_unusable(origin: str, reason: object) -> APIError:
    """Return a 502: the upstream answered a WebSocket handshake in a way that breaks RFC 6455."""
    return upstream_error(
        f"The WebSocket handshake of {origin} is invalid: {reason}.", ErrorCode.UPSTREAM_MALFORMED
    )


def compressed_data_cut(who: str = "upstream") -> APIError:
    """Return a 502: the body is complete, but the compressed data in it is not."""
    return upstream_error(f"The {who}'s compressed answer was cut off.", ErrorCode.UPSTREAM_CUT)


def status_error(
    status: int, message: str, code: ErrorCode = ErrorCode.UPSTREAM_STATUS, *, for_log: str | None = None
) -> APIError:
    """Return the error for a response whose body is unusable, so that its status has to suffice.

    :param status: the upstream's. One that is no error becomes a 502.
    :param code: the reason why the body is unusable.
    """
    if not 400 <= status <= 599:
        return proxy_error(code, message, for_log=for_log)
    type = RATE_LIMIT if status == 429 else SERVER_ERROR if status >= 500 else INVALID_REQUEST
    return APIError(status, message, type, code=code.code, for_log=for_log)


# Sizes


def response_too_large(limit: int) -> APIError:
    """Return a 502: more than `limit` bytes would have to be held."""
    return proxy_error(
        ErrorCode.RESPONSE_TOO_LARGE,
        f"The upstream's answer is larger than the {limit} bytes that maxResponseBytes allows to hold; "
        "ask for less output, stream the answer, or raise maxResponseBytes.",
    )


def decoded_too_large(limit: int) -> APIError:
    """Return a 502: a compressed response decodes to more than `limit` bytes, as decompression bombs do."""
    return proxy_error(
        ErrorCode.DECODED_TOO_LARGE,
        f"The upstream's answer decodes to more than the {limit} bytes that maxDecodedBytes allows; "
        "ask for less output, or raise maxDecodedBytes.",
    )


# Connections


def server_overloaded(message: str) -> APIError:
    """Return a 503: a bound on connections is reached; a second later there may be room."""
    return proxy_error(ErrorCode.SERVER_IS_OVERLOADED, message, retry_after=1)


def too_many_connections(limit: int) -> APIError:
    """Return a 503: the client's connection is one too many."""
    return server_overloaded(
        f"All {limit} connections that maxConnections allows are in use; try again, or raise maxConnections."
    )


def without_frames(error: _Error) -> _Error:
    """Return `error` without traceback and context.

    Their frames hold whatever was worked on, often the error itself too, until the cycle collector runs.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def overloaded(origin: str, limit: int, waiting: int) -> APIError:
    """Return a 503: no connection to the upstream is free, and too many requests wait for one."""
    return server_overloaded(
        f"All {limit} connections to {origin} that maxUpstreamConnections allows are in use, and {waiting} "
        "more requests wait for one; try again later, or raise maxUpstreamConnections."
    )


def no_connection_free(origin: str, limit: int, seconds: float) -> APIError:
    """Return a 504: no connection to the upstream became free."""
    return proxy_error(
        ErrorCode.NO_CONNECTION_FREE,
        f"None of the {limit} connections to {origin} that maxUpstreamConnections allows became free within "
        f"{seconds:g} seconds; try again later, or raise maxUpstreamConnections.",
    )


# Requests of clients


def invalid_request(
    message: str, code: ErrorCode = ErrorCode.INVALID_REQUEST_ERROR, *, param: str | None = None
) -> APIError:
    """Return a 4xx: the client's request cannot be served."""
    return proxy_error(code, message, param=param)


def invalid_target() -> APIError:
    """Return a 400: the request target cannot be forwarded."""
    return invalid_request(
        "The request target must be a path, or an http:// or https:// URL.", ErrorCode.INVALID_TARGET
    )


def invalid_handshake(reason: str) -> APIError:
    """Return a 400: the client's WebSocket handshake breaks RFC 6455."""
    return invalid_request(f"The WebSocket handshake is malformed: {reason}.", ErrorCode.INVALID_HANDSHAKE)


def not_http() -> APIError:
    """Return a 400: the bytes that came are no request."""
    return invalid_request(
        "The request is not valid HTTP/1.1; check the client's framing and headers.", ErrorCode.INVALID_HTTP
    )


def head_too_large(limit: int) -> APIError:
    """Return a 431: the head has too many bytes."""
    return invalid_request(
        f"The request head is larger than {limit} bytes; send fewer or shorter headers, "
        "or raise maxHeaderBytes.",
        ErrorCode.REQUEST_HEAD_TOO_LARGE,
    )


def too_many_fields(limit: int) -> APIError:
    """Return a 431: the head has too many fields."""
    return invalid_request(
        f"The request head has more than {limit} fields; send fewer headers, or raise maxHeaderCount.",
        ErrorCode.TOO_MANY_HEADERS,
    )


def head_too_slow(seconds: float) -> APIError:
    """Return a 408: the head did not come to its end."""
    return invalid_request(
        f"The request head was not whole within {seconds:g} seconds; send it at once, "
        "or raise requestHeadSeconds.",
        ErrorCode.REQUEST_HEAD_TIMEOUT,
    )


def body_too_slow(seconds: float) -> APIError:
    """Return a 408: a body that has to be held did not come to its end."""
    return invalid_request(
        f"The request body was not whole within {seconds:g} seconds; send less, or raise requestBodySeconds.",
        ErrorCode.REQUEST_BODY_TIMEOUT,
    )


def body_too_large(limit: int) -> APIError:
    """Return a 413: a body that has to be held is too large."""
    return invalid_request(
        f"The request body is larger than {limit} bytes; send less, or raise maxRequestBytes.",
        ErrorCode.REQUEST_TOO_LARGE,
    )


def upload_stalled(seconds: float) -> APIError:
    """Return a 504: the client began a body and sent no more of it."""
    return proxy_error(ErrorCode.UPLOAD_STALLED, f"The upload stood still for {seconds:g} seconds.")


def client_stalled(seconds: float) -> APIError:
    """Return the error for the log when a client stopped reading; no client ever sees it."""
    return proxy_error(ErrorCode.CLIENT_STALLED, f"The client took nothing for {seconds:g} seconds.")


def internal_error() -> APIError:
    """Return a 500: a bug of ours."""
    return proxy_error(ErrorCode.INTERNAL_ERROR, "The proxy failed on this request; its log says why.")
