"""What a service says with a status that is no success, as an OpenAI error."""

from __future__ import annotations

from stream_proxy.adapter.reader import Reader
from stream_proxy.aggregate.stream_errors import chat_stream_error
from stream_proxy.error_codes import UPSTREAM_ERROR
from stream_proxy.errors import APIError, status_error

#: How much of a refusal's body is looked at.
REFUSAL_BYTES = 65_536
_REDIRECTS = (301, 302, 303, 307, 308)


def refusal(status: int, body: bytes, reader: Reader, origin: str) -> APIError:
    """The error for a refusal; a 4xx or 5xx keeps its status, anything else is a 502.

    :param body: the beginning of its body.
    :param origin: the service's, for the message where it gives none.
    """
    if not 400 <= status <= 599:
        hint = "; set upstreamUrl to where it redirects" if status in _REDIRECTS else ""
        return status_error(status, f"The service at {origin} answered with status {status}{hint}.")
    plain = f"The service at {origin} answered with status {status}"
    own_type = status_error(status, plain).type
    found = reader.failure(body)
    if found is None:
        hint = "; check upstreamUrl and the adapter's method" if status in (404, 405) else ""
        return status_error(status, f"{plain}{hint}.")
    told = chat_stream_error(found)
    if told.type != UPSTREAM_ERROR:
        own_type = told.type
    code = None if told.code == UPSTREAM_ERROR else told.code
    return APIError(status, told.message, own_type, param=told.param, code=code, for_log=plain)
