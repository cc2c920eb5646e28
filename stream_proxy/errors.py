"""The errors that this package answers with: OpenAI's envelope and the tables that choose a status.

The envelope is that of the OpenAI API reference, ``{"error": {"message", "type", "param", "code"}}``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

UPSTREAM_ERROR = "upstream_error"
UPSTREAM_TIMEOUT = "upstream_timeout"
INVALID_REQUEST = "invalid_request_error"
INTERNAL_ERROR = "internal_error"
RATE_LIMIT = "rate_limit_error"
SERVER_ERROR = "server_error"


_Error = TypeVar("_Error", bound=BaseException)


class IncompleteStreamError(RuntimeError):
    """A result was asked for before the stream had delivered it."""


class APIError(Exception):
    """A failed call, as the client is to see it.

    :param status: the HTTP status, 400 to 599.
    :param message: what happened, in words that a user can act on, without secrets.
    :param type: OpenAI's class of error, like ``"upstream_error"``.
    :param param: the request field at fault, when known.
    :param code: the upstream's own code; `type` is repeated where it gave none.
    :param should_retry: not ``None``: tell the SDKs so with an ``x-should-retry`` header.
    :param for_log: what the log says instead of `message`, which may quote a key or a prompt.
    :param retry_after: seconds after which trying again may help, for ``Retry-After``.
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
        self.code: str | int | None = type if code is None else code
        self.should_retry = should_retry
        self.retry_after = retry_after
        self.for_log = message if for_log is None else for_log

    def redacted(self, redact: Callable[[str], str]) -> APIError:
        """Return the same error with every text passed through `redact`."""
        return APIError(
            self.status,
            redact(self.message),
            redact(self.type),
            param=None if self.param is None else redact(self.param),
            code=redact(self.code) if isinstance(self.code, str) else self.code,
            should_retry=self.should_retry,
            for_log=redact(self.for_log),
            retry_after=self.retry_after,
        )

    def envelope(self) -> bytes:
        """The answer's body: JSON with exactly the four keys of OpenAI's error object."""
        body = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        # UTF-8 cannot hold a lone surrogate; backslashreplace writes the JSON escape that it came as.
        return json.dumps({"error": body}, ensure_ascii=False).encode("utf-8", "backslashreplace")


def upstream_error(message: str, *, should_retry: bool | None = None) -> APIError:
    """502: the upstream could not be reached, or what it said is no answer."""
    return APIError(502, message, UPSTREAM_ERROR, should_retry=should_retry)


def upstream_timeout(message: str) -> APIError:
    """504: the upstream kept silent for too long."""
    return APIError(504, message, UPSTREAM_TIMEOUT)


def server_overloaded(message: str) -> APIError:
    """503: a bound on connections is reached; a second later there may be room."""
    return APIError(503, message, SERVER_ERROR, code="server_is_overloaded", retry_after=1)


def overloaded(origin: str, limit: int, waiting: int) -> APIError:
    """503: no connection to the upstream is free, and too many requests wait for one."""
    return server_overloaded(
        f"All {limit} connections to {origin} that maxUpstreamConnections allows are in use, and {waiting} "
        "more requests wait for one; try again later, or raise maxUpstreamConnections."
    )


def no_connection_free(origin: str, limit: int, seconds: float) -> APIError:
    """504: no connection to the upstream became free."""
    return upstream_timeout(
        f"None of the {limit} connections to {origin} that maxUpstreamConnections allows became free within "
        f"{seconds:g} seconds; try again later, or raise maxUpstreamConnections."
    )


def upload_stalled(seconds: float) -> APIError:
    """504: the client began a body and does not go on."""
    return upstream_timeout(f"The upload stood still for {seconds:g} seconds.")


def invalid_request(message: str, status: int = 400, *, param: str | None = None) -> APIError:
    """A 4xx: the client's request cannot be served."""
    return APIError(status, message, INVALID_REQUEST, param=param)


def internal_error(message: str = "The proxy failed on this request; its log says why.") -> APIError:
    """500: a bug of ours."""
    return APIError(500, message, INTERNAL_ERROR)


def response_too_large(limit: int) -> APIError:
    """502: more than `limit` bytes would have to be held. Trying again would only cost the same again."""
    return upstream_error(
        f"The upstream's answer is larger than the {limit} bytes that maxResponseBytes allows to hold; "
        "ask for less output, stream the answer, or raise maxResponseBytes.",
        should_retry=False,
    )


def decoded_too_large(limit: int) -> APIError:
    """502: a compressed answer decodes to more than `limit` bytes, which is what bombs do."""
    return upstream_error(
        f"The upstream's answer decodes to more than the {limit} bytes that maxDecodedBytes allows; "
        "ask for less output, or raise maxDecodedBytes.",
        should_retry=False,
    )


def status_error(status: int, message: str, *, for_log: str | None = None) -> APIError:
    """An answer that has nothing but its status to say; one that is no error is a 502."""
    if not 400 <= status <= 599:
        return APIError(502, message, UPSTREAM_ERROR, for_log=for_log)
    type = RATE_LIMIT if status == 429 else SERVER_ERROR if status >= 500 else INVALID_REQUEST
    return APIError(status, message, type, for_log=for_log)


def not_http() -> APIError:
    """400: what came is no request."""
    return invalid_request("The request is not valid HTTP/1.1; check the client's framing and headers.")


def head_too_large(limit: int) -> APIError:
    """431: the head has too many bytes."""
    return invalid_request(
        f"The request head is larger than {limit} bytes; send fewer or shorter headers, "
        "or raise maxHeaderBytes.",
        431,
    )


def too_many_fields(limit: int) -> APIError:
    """431: the head has too many fields."""
    return invalid_request(
        f"The request head has more than {limit} fields; send fewer headers, or raise maxHeaderCount.", 431
    )


def head_too_slow(seconds: float) -> APIError:
    """408: the head does not come to its end."""
    return invalid_request(
        f"The request head was not whole within {seconds:g} seconds; send it at once, "
        "or raise requestHeadSeconds.",
        408,
    )


def body_too_slow(seconds: float) -> APIError:
    """408: the body that is to be held does not come to its end."""
    return invalid_request(
        f"The request body was not whole within {seconds:g} seconds; send less, or raise requestBodySeconds.",
        408,
    )


def body_too_large(limit: int) -> APIError:
    """413: the body that is to be held is too large."""
    return invalid_request(
        f"The request body is larger than {limit} bytes; send less, or raise maxRequestBytes.", 413
    )


def too_many_connections(limit: int) -> APIError:
    """503: the connection is one too many."""
    return server_overloaded(
        f"All {limit} connections that maxConnections allows are in use; try again, or raise maxConnections."
    )


class ConfigError(Exception):
    """The configuration cannot be used; the text is one line that names file, field and problem."""


def without_frames(error: _Error) -> _Error:
    """Return `error` without traceback and context.

    Their frames hold whatever was worked on, often the error itself too, until the cycle collector runs.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error
