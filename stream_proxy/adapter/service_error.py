"""Response of a service with an error status, as an OpenAI error."""

from __future__ import annotations

from stream_proxy.adapter.reader import Reader
from stream_proxy.aggregate.stream_errors import chat_stream_error
from stream_proxy.errors import APIError, status_error

#: How much of such a response's body is read: error messages are short, error pages need not be.
REFUSAL_BYTES = 65_536
_REDIRECTS = (301, 302, 303, 307, 308)


def refusal(status: int, body: bytes, reader: Reader, origin: str) -> APIError:
    """Return the error for a response that is no success; a 4xx or 5xx keeps its status, else it is a 502.

    :param body: the beginning of its body.
    :param origin: the service's, for a message of ours where the body has none.
    """
    if not 400 <= status <= 599:
        hint = "; set upstreamUrl to where it redirects" if status in _REDIRECTS else ""
        return status_error(status, f"The service at {origin} answered with status {status}{hint}.")
    plain = f"The service at {origin} answered with status {status}"
    found = reader.error_in(body)
    if found is None:
        hint = "; check upstreamUrl and the adapter's method" if status in (404, 405) else ""
        return status_error(status, f"{plain}{hint}.")
    error = chat_stream_error(found, status=status)
    error.for_log = plain
    return error
