"""Tunnels through an egress proxy, opened with ``CONNECT`` (RFC 9110 section 9.3.6)."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from stream_proxy.upstream.egress import EgressProxy
from stream_proxy.upstream.failures import ProxyFailedError, ProxyRefusedError
from stream_proxy.upstream.http1.faults import HeadTooLargeError, InvalidAnswerError
from stream_proxy.upstream.http1.head import first_bytes

#: The longest response head to a CONNECT.
MAX_ANSWER_BYTES = 16_384
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.[0-9] ([1-5][0-9]{2})(?: .*)?")


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """Endpoint of an upstream behind a proxy.

    :param endpoint: the proxy's own endpoint.
    :param proxy: the proxy, for its credentials and its name in errors.
    :param authority: the upstream's host and port.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, proxy: EgressProxy, authority: str) -> None:
        self._endpoint = endpoint
        self._proxy = proxy
        lines = [f"CONNECT {authority} HTTP/1.1".encode("ascii"), b"Host: " + authority.encode("ascii")]
        if proxy.authorization is not None:
            lines.append(b"Proxy-Authorization: " + proxy.authorization)
        self._request = b"\r\n".join([*lines, b"", b""])

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect a protocol of `protocolFactory` once the proxy has reached the upstream.

        :raises ProxyFailedError: through the Deferred: the proxy could not be used.
        :raises ProxyRefusedError: through the Deferred: it refused, or could not reach the upstream.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        asking = _Asking(self._request)
        try:
            await self._endpoint.connect(_Only(asking))
            rest = await asking.answered
        except (CancelledError, ProxyRefusedError):
            raise
        except Exception as error:
            raise ProxyFailedError(self._proxy, error) from None
        finally:
            asking.answered.addErrback(lambda _: None)
        transport = asking.transport
        protocol = factory.buildProtocol(transport.getPeer())
        assert protocol is not None  # only a server's factory may refuse a connection
        _hand_over(transport, protocol)
        protocol.makeConnection(transport)
        if rest:
            protocol.dataReceived(rest)
        return protocol


class _Asking(Protocol):
    """Protocol for one CONNECT and the response to it."""

    transport: Any

    def __init__(self, request: bytes) -> None:
        #: Fires with the bytes behind the response's head, which are the upstream's.
        self.answered: Deferred[bytes] = Deferred(lambda _: self.transport.abortConnection())
        self._request = request
        self._received = 0
        self._head = b""

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if self.answered.called:
            return
        self._received += len(data)
        self._head += data
        try:
            first_bytes(b"", self._head)
            while (end := _HEAD_END.search(self._head)) is not None:
                status = _STATUS.fullmatch(self._head.split(b"\n", 1)[0].rstrip(b"\r"))
                if status is None:
                    raise InvalidAnswerError()
                self._head = self._head[end.end() :]
                code = int(status[1])
                if code >= 300:
                    raise ProxyRefusedError(code)
                if code >= 200:
                    self.answered.callback(self._head)
                    return
            if self._received > MAX_ANSWER_BYTES:
                raise HeadTooLargeError()
        except Exception:
            self.answered.errback(Failure())
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if not self.answered.called:
            self.answered.errback(reason)


class _Only(Factory):
    """Factory of one protocol that exists already."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._protocol


def _hand_over(transport: Any, protocol: IProtocol) -> None:
    """Make `protocol` the receiver of `transport`."""
    if isinstance(transport, TLSMemoryBIOProtocol):
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol
