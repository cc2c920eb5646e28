"""Failures of upstreams: Twisted's exceptions in, errors with a code and words for the client out."""

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

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, proxy_error, upstream_error, without_frames
from stream_proxy.transport.dead_path import DEAD_SECONDS
from stream_proxy.upstream.egress import EgressProxy
from stream_proxy.upstream.http1.faults import (
    HeadTooLargeError,
    HTTP2SpokenError,
    InvalidAnswerError,
    TLSSpokenError,
)
from stream_proxy.upstream.pem import openssl_words
from stream_proxy.upstream.tls import CertificateError


class ConnectLimitError(Exception):
    """DNS, TCP and TLS together took too long."""


class DeadPathError(Exception):
    """Nothing of a request was acknowledged for a while."""

    def __init__(self) -> None:
        super().__init__(f"it acknowledged nothing for {DEAD_SECONDS:g} seconds")


class ProxyRefusedError(Exception):
    """The egress proxy sent a response of its own, with this status, in place of the upstream's."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ProxyFailedError(Exception):
    """The egress proxy could not be used, because of `cause`."""

    def __init__(self, proxy: EgressProxy, cause: BaseException) -> None:
        super().__init__(f"{proxy.name} failed: {type(cause).__name__}")
        self.proxy = proxy
        self.cause = cause


@dataclass(frozen=True)
class Peer:
    """The other end of a connection, as error messages name it.

    :param name: its name within a sentence.
    :param host: the name that its certificate must be for.
    :param setting: the config key or environment variable that names it.
    :param certificate: whether we have a certificate to show it.
    :param proxy: the egress proxy that leads to it.
    """

    name: str
    host: str
    setting: str = "upstreamUrl"
    certificate: bool = False
    proxy: EgressProxy | None = None

    @classmethod
    def of_proxy(cls, proxy: EgressProxy) -> Peer:
        """Return the egress proxy itself as a peer."""
        return cls(proxy.name, proxy.url.host, proxy.setting)

    @property
    def is_upstream(self) -> bool:
        """Whether it is the upstream, not an egress proxy."""
        return self.setting == "upstreamUrl"

    @property
    def subject(self) -> str:
        """Its name at the beginning of a sentence."""
        return re.sub("^the ", "The ", self.name)

    @property
    def way(self) -> str:
        """The words for how it is reached, with a blank before them."""
        return f" through {self.proxy.name}" if self.proxy is not None else ""

    @property
    def who(self) -> str:
        """The word for it where its name stands before."""
        return "the upstream" if self.is_upstream else "it"


_Kinds = tuple[type[BaseException], ...]

#: Causes inside Twisted's wrappers, which say more than the wrapper; the first row that fits counts.
#: The words are formatted with the `peer`, the `error`, and OpenSSL's words for it (`tls`).
_CAUSES: tuple[tuple[_Kinds, ErrorCode, str], ...] = (
    ((CertificateError,), ErrorCode.UPSTREAM_TLS, "TLS to {peer.name} failed: {error}."),
    (
        (VerificationError,),
        ErrorCode.UPSTREAM_TLS,
        "TLS to {peer.name} failed: its certificate is not for the name {peer.host}.",
    ),
    (
        (HeadTooLargeError,),
        ErrorCode.UPSTREAM_MALFORMED,
        "{peer.subject} sent a response head that is too large.",
    ),
    (
        (DeadPathError,),
        ErrorCode.UPSTREAM_UNREACHABLE,
        "The path to {peer.name} is dead: {error}.",
    ),
    (
        (TLSSpokenError,),
        ErrorCode.UPSTREAM_MALFORMED,
        "{peer.subject} speaks TLS; use https:// in {peer.setting}.",
    ),
    (
        (HTTP2SpokenError,),
        ErrorCode.UPSTREAM_MALFORMED,
        "{peer.subject} speaks HTTP/2, but only HTTP/1.1 can be used with it; check {peer.setting}.",
    ),
    ((InvalidAnswerError,), ErrorCode.UPSTREAM_MALFORMED, "{peer.subject} sent an invalid HTTP response."),
    ((SSL.Error,), ErrorCode.UPSTREAM_TLS, "TLS to {peer.name} failed: {tls}."),
)
#: Errors themselves, where no cause explains them; `seconds` is the limit for connecting. The first row that
#: fits counts: a ConnectionRefusedError is a ConnectError, too, and a DNSLookupError an OSError.
_ERRORS: tuple[tuple[_Kinds, ErrorCode, str], ...] = (
    (
        (ConnectLimitError, TimeoutError, TCPTimedOutError),
        ErrorCode.UPSTREAM_TIMEOUT,
        "{peer.subject} could not be reached{peer.way} within {seconds:g} seconds.",
    ),
    (
        (ConnectionRefusedError,),
        ErrorCode.UPSTREAM_REFUSED,
        "{peer.subject} refused the connection; check {peer.setting} and that {peer.who} runs.",
    ),
    (
        (DNSLookupError,),
        ErrorCode.UPSTREAM_DNS,
        "The host name of {peer.name} was not found; check {peer.setting}.",
    ),
    (
        (NoRouteError, UserError, ConnectError),
        ErrorCode.UPSTREAM_UNREACHABLE,
        "{peer.subject} cannot be reached from here ({error.__class__.__name__}).",
    ),
    (
        (ResponseNeverReceived,),
        ErrorCode.UPSTREAM_CUT,
        "{peer.subject} closed the connection before it answered.",
    ),
    (
        (
            ConnectionClosed,
            OSError,
            ResponseFailed,
            RequestTransmissionFailed,
            RequestNotSent,
            RequestGenerationFailed,
        ),
        ErrorCode.UPSTREAM_CUT,
        "{peer.subject} closed the connection before its answer was complete.",
    ),
)
#: Exceptions of Twisted's response parser: a ResponseFailed that wraps one of these means bad HTTP. (Its
#: subclass ResponseNeverReceived does not: nothing was parsed.)
_PARSING = (ParseError, ValueError, KeyError)


def request_failure(failure: Failure, peer: Peer, connect_seconds: float) -> Failure:
    """Return the reason why there is no response, as a Failure of :class:`APIError`.

    A failure that is not known here is returned as it is.
    """
    error = _explain(failure.value, peer, connect_seconds)
    return failure if error is None else replaced(failure, error)


def replaced(failure: Failure, error: Exception) -> Failure:
    """Return the Failure of `error`, in place of one whose frames are of no use any more.

    These hold the connection, the request and the flow, and these in turn hold the failure.
    """
    failure.cleanFailure()
    if failure.value is not None:
        without_frames(failure.value)
    return Failure(error)


def body_failure(failure: Failure, origin: str) -> APIError:
    """Return the reason why the body of a response did not come to its end."""
    for cause in _causes(failure.value):
        if isinstance(cause, APIError):
            return cause
        if isinstance(cause, DeadPathError):
            return upstream_error(f"The path to {origin} is dead: {cause}.", ErrorCode.UPSTREAM_UNREACHABLE)
    return upstream_error(
        f"The connection to {origin} broke before the answer was complete.", ErrorCode.UPSTREAM_CUT
    )


def _explain(error: BaseException | None, peer: Peer, seconds: float) -> APIError | None:
    causes = _causes(error)
    for cause in causes:
        match cause:
            case APIError():
                return cause
            case ProxyFailedError():
                return _explain(cause.cause, Peer.of_proxy(cause.proxy), seconds)
            case ProxyRefusedError():
                return _refused(cause.status, peer)
        for kinds, code, words in _CAUSES:
            if isinstance(cause, kinds):
                tls = _tls_words(cause, peer) if isinstance(cause, SSL.Error) else ""
                return _failed(peer, code, words.format(peer=peer, error=cause, tls=tls))
    if type(error) is ResponseFailed and any(isinstance(cause, _PARSING) for cause in causes):
        return _explain(InvalidAnswerError(), peer, seconds)
    for kinds, code, words in _ERRORS:
        if isinstance(error, kinds):
            return _failed(peer, code, words.format(peer=peer, error=error, seconds=seconds))
    return None


def _failed(peer: Peer, code: ErrorCode, message: str) -> APIError:
    """Return the error; all failures of an egress proxy have one code, save for the time-out with its 504."""
    if not peer.is_upstream and code is not ErrorCode.UPSTREAM_TIMEOUT:
        code = ErrorCode.EGRESS_FAILED
    return proxy_error(code, message)


def _refused(status: int, peer: Peer) -> APIError:
    """Return the error for a response of the egress proxy's own."""
    if peer.proxy is None:  # it is the proxy
        who, setting, what = peer.subject, peer.setting, "the request"
    else:
        who, setting, what = Peer.of_proxy(peer.proxy).subject, peer.proxy.setting, f"a tunnel to {peer.name}"
    match status:
        case 407:
            words = f"{who} wants other credentials (407); check the user in {setting}."
        case 502 | 503 | 504:
            words = f"{who} could not reach {peer.name} ({status})."
        case _:
            words = f"{who} refused {what} ({status}); check {setting} and what the proxy allows."
    return upstream_error(words, ErrorCode.EGRESS_REFUSED)


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return the error and everything that it wraps, outermost first."""
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


#: OpenSSL's words for a server that answers in the clear.
_NO_TLS = ("wrong version number", "packet length too long", "http request")


def _tls_words(error: SSL.Error, peer: Peer) -> str:
    words = openssl_words(error)
    if not words:
        return "the handshake was not completed"
    if words in _NO_TLS:
        return f"{words}; no TLS seems to be spoken there, so use http:// in {peer.setting}"
    if not peer.is_upstream or "alert" not in words:
        return words
    if peer.certificate:
        return f"{words}; check that it accepts the certificate in certificateFile"
    if "certificate required" in words:
        return "it demands a client certificate; set certificateFile"
    if "handshake failure" in words:  # TLS 1.2 has no alert of its own for this
        return f"{words}; if it demands a client certificate, set certificateFile"
    return words
