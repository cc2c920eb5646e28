"""What clients are told that break a limit of the connection or of the request itself."""

from __future__ import annotations

from http import HTTPStatus

from stream_proxy.errors import APIError, invalid_request, server_overloaded


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


def response(error: APIError) -> bytes:
    """`error` as the last response of a connection, byte for byte."""
    body = error.envelope()
    lines = [
        b"HTTP/1.1 %d %b" % (error.status, HTTPStatus(error.status).phrase.encode("ascii")),
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    ]
    if error.retry_after is not None:
        lines.append(b"Retry-After: %d" % error.retry_after)
    return b"\r\n".join([*lines, b"Connection: close", b"", body])
