"""What Twisted reports when an upstream fails, in the words and with the status that the client gets."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
from stream_proxy.upstream.egress import EgressProxy
from stream_proxy.upstream.pem import openssl_words
from stream_proxy.upstream.tls import CertificateError


class ConnectLimitError(Exception):
    """DNS, TCP and TLS together took too long."""


class HeadTooLargeError(Exception):
    """The head of the answer does not end."""


class InvalidAnswerError(Exception):
    """What came is no HTTP."""


class ProxyRefusedError(Exception):
    """The egress proxy answered with this status of its own, and not with what was asked for."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ProxyFailedError(Exception):
    """The egress proxy could not be asked, because of `cause`."""

    def __init__(self, proxy: EgressProxy, cause: BaseException) -> None:
        super().__init__(f"{proxy.name} failed: {type(cause).__name__}")
        self.proxy = proxy
        self.cause = cause


@dataclass(frozen=True)
class Peer:
    """Whom we talk with, in the words of errors.

    ``name`` goes into a sentence; ``host`` is the name that its certificate must be for, ``setting`` the
    config key or environment variable that names it; ``certificate`` whether we have one to show; ``proxy``
    leads to it.
    """

    name: str
    host: str
    setting: str = "upstreamUrl"
    certificate: bool = False
    proxy: EgressProxy | None = None

    @classmethod
    def of_proxy(cls, proxy: EgressProxy) -> Peer:
        """A proxy that is itself whom we talk with."""
        return cls(proxy.name, proxy.url.host, proxy.setting)

    @property
    def subject(self) -> str:
        """The name at the beginning of a sentence."""
        return re.sub("^the ", "The ", self.name)


_BROKEN = (
    ConnectionClosed,
    OSError,
    ResponseFailed,
    RequestTransmissionFailed,
    RequestNotSent,
    RequestGenerationFailed,
)


def request_failure(failure: Failure, peer: Peer, connect_seconds: float) -> Failure:
    """Why there is no answer, as a Failure of :class:`APIError`. Other failures stay as they are."""
    error = _explain(failure.value, peer, connect_seconds)
    return failure if error is None else Failure(error)


def body_failure(failure: Failure, origin: str) -> APIError:
    """Why the body of an answer did not come to its end."""
    for cause in _causes(failure.value):
        if isinstance(cause, APIError):
            return cause
    return upstream_error(f"The connection to {origin} broke before the answer was complete.")


def _explain(error: BaseException | None, peer: Peer, connect_seconds: float) -> APIError | None:
    causes = _causes(error)
    for cause in causes:
        match cause:
            case APIError():
                return cause
            case ProxyFailedError():
                return _explain(cause.cause, Peer.of_proxy(cause.proxy), connect_seconds)
            case ProxyRefusedError():
                return _refused(cause.status, peer)
            case CertificateError():
                return upstream_error(f"TLS to {peer.name} failed: {cause}.")
            case VerificationError():
                return upstream_error(
                    f"TLS to {peer.name} failed: its certificate is not for the name {peer.host}."
                )
            case HeadTooLargeError():
                return upstream_error(f"{peer.subject} sent a response head that is too large.")
            case InvalidAnswerError():
                return _invalid(peer)
            case SSL.Error():
                return upstream_error(f"TLS to {peer.name} failed: {_tls_words(cause, peer)}.")
    match error:
        case ConnectLimitError() | TimeoutError() | TCPTimedOutError():
            through = f" through {peer.proxy.name}" if peer.proxy is not None else ""
            return upstream_timeout(
                f"{peer.subject} could not be reached{through} within {connect_seconds:g} seconds."
            )
        case ConnectionRefusedError():
            who = "the upstream" if peer.setting == "upstreamUrl" else "it"
            return upstream_error(
                f"{peer.subject} refused the connection; check {peer.setting} and that {who} runs."
            )
        case DNSLookupError():
            return upstream_error(f"The host name of {peer.name} was not found; check {peer.setting}.")
        case NoRouteError() | UserError() | ConnectError():
            return upstream_error(f"{peer.subject} cannot be reached from here ({type(error).__name__}).")
        case ResponseNeverReceived():
            return upstream_error(f"{peer.subject} closed the connection before it answered.")
        case ResponseFailed() if any(
            isinstance(cause, (ParseError, ValueError, KeyError)) for cause in causes
        ):
            return _invalid(peer)
        case _ if isinstance(error, _BROKEN):
            return upstream_error(f"{peer.subject} closed the connection before its answer was complete.")
    return None


def _invalid(peer: Peer) -> APIError:
    return upstream_error(f"{peer.subject} sent an invalid HTTP response.")


def _refused(status: int, peer: Peer) -> APIError:
    """What an egress proxy's own answer means."""
    if peer.proxy is None:  # it is the proxy
        who, setting, what = peer.subject, peer.setting, "the request"
    else:
        who, setting, what = Peer.of_proxy(peer.proxy).subject, peer.proxy.setting, f"a tunnel to {peer.name}"
    match status:
        case 407:
            return upstream_error(f"{who} wants other credentials (407); check the user in {setting}.")
        case 502 | 503 | 504:
            return upstream_error(f"{who} could not reach {peer.name} ({status}).")
    return upstream_error(f"{who} refused {what} ({status}); check {setting} and what the proxy allows.")


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


def _tls_words(error: SSL.Error, peer: Peer) -> str:
    words = openssl_words(error)
    if not words:
        return "the handshake was not completed"
    if peer.setting != "upstreamUrl" or "alert" not in words:
        return words
    if peer.certificate:
        return f"{words}; check that it accepts the certificate in certificateFile"
    if "certificate required" in words:
        return "it demands a client certificate; set certificateFile"
    if "handshake failure" in words:  # what TLS 1.2 has for the same, among others
        return f"{words}; if it demands a client certificate, set certificateFile"
    return words
