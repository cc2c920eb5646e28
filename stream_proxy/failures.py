"""What Twisted reports when an upstream fails, in the words and with the status that the client gets."""

from __future__ import annotations

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.error import (
    ConnectError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
    TimeoutError,
    UserError,
)
from twisted.python.failure import Failure
from twisted.web._newclient import (
    ParseError,
    RequestGenerationFailed,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
    _WrapperException,
)

from stream_proxy.errors import APIError, upstream_error, upstream_timeout
from stream_proxy.tls import CertificateError
from stream_proxy.url import UpstreamURL


class ConnectLimitError(Exception):
    """DNS, TCP and TLS together took too long."""


class HeadTooLargeError(Exception):
    """The head of the answer does not end."""


_BROKEN = (
    ConnectionClosed,
    OSError,
    ResponseFailed,
    RequestTransmissionFailed,
    RequestNotSent,
    RequestGenerationFailed,
)


def request_failure(failure: Failure, url: UpstreamURL, connect_seconds: float) -> Failure:
    """Why there is no answer, as a Failure of :class:`APIError`. Other failures stay as they are."""
    error = _explain(failure.value, url, connect_seconds)
    return failure if error is None else Failure(error)


def body_failure(failure: Failure, origin: str) -> APIError:
    """Why the body of an answer did not come to its end."""
    for cause in _causes(failure.value):
        if isinstance(cause, APIError):
            return cause
    return upstream_error(f"The connection to {origin} broke before the answer was complete.")


def _explain(error: BaseException | None, url: UpstreamURL, connect_seconds: float) -> APIError | None:
    where = url.origin
    causes = _causes(error)
    for cause in causes:
        match cause:
            case APIError():
                return cause
            case CertificateError():
                return upstream_error(f"TLS to {where} failed: {cause}.")
            case VerificationError():
                return upstream_error(
                    f"TLS to {where} failed: its certificate is not for the name {url.host}."
                )
            case HeadTooLargeError():
                return upstream_error(f"{where} sent a response head that is too large.")
            case SSL.Error():
                return upstream_error(f"TLS to {where} failed: {_openssl_words(cause)}.")
    match error:
        case ConnectLimitError() | TimeoutError() | TCPTimedOutError():
            return upstream_timeout(f"{where} could not be reached within {connect_seconds:g} seconds.")
        case ConnectionRefusedError():
            return upstream_error(
                f"{where} refused the connection; check upstreamUrl and that the upstream runs."
            )
        case DNSLookupError():
            return upstream_error(f"The host name of {where} was not found; check upstreamUrl.")
        case NoRouteError() | UserError() | ConnectError():
            return upstream_error(f"{where} cannot be reached from here ({type(error).__name__}).")
        case ResponseNeverReceived():
            return upstream_error(f"{where} closed the connection before it answered.")
        case ResponseFailed() if any(
            isinstance(cause, (ParseError, ValueError, KeyError)) for cause in causes
        ):
            return upstream_error(f"{where} sent an invalid HTTP response.")
        case _ if isinstance(error, _BROKEN):
            return upstream_error(f"{where} closed the connection before its answer was complete.")
    return None


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and what it wraps, outermost first."""
    found: list[BaseException] = []
    todo = [error]
    while todo:
        one = todo.pop(0)
        if one is None:
            continue
        found.append(one)
        if isinstance(one, _WrapperException):
            todo.extend(reason.value for reason in one.reasons)
    return found


def _openssl_words(error: SSL.Error) -> str:
    try:
        words = str(error.args[0][0][2])
    except (IndexError, TypeError):
        words = ""
    return words or "the handshake was not completed"
