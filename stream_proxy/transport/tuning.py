"""Options of the TCP connections on both sides of the proxy."""

from __future__ import annotations

import select
import socket

from twisted.internet.interfaces import IHalfCloseableDescriptor, ITCPTransport, IUNIXTransport
from twisted.protocols.tls import TLSMemoryBIOProtocol

from stream_proxy.transport.eager_tls import holds_plain
from stream_proxy.transport.eager_write import send_promptly, send_written, tcp_connection, unsent

_KEEP_ALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))


def tune(transport: object) -> None:
    """Send promptly, and probe an idle TCP connection often enough for the NATs on the way."""
    send_promptly(transport)
    # Twisted's UNIX connections claim to provide ITCPTransport as well.
    if not ITCPTransport.providedBy(transport) or IUNIXTransport.providedBy(transport):
        return
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(True)
    handle = getattr(transport, "getHandle", lambda: None)()
    if isinstance(handle, socket.socket):
        set_probes(handle)


def set_probes(handle: socket.socket) -> None:
    """Probe after 60 s of silence, every 60 s, 5 times, where the platform has these options."""
    for name, value in _KEEP_ALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            handle.setsockopt(socket.IPPROTO_TCP, option, value)


def is_half_closeable(transport: object) -> bool:
    """Report whether `transport` is a plain connection; under TLS a half-close never reaches the protocol."""
    # A TLS transport claims every interface of the connection below it.
    return not has_handshake(transport) and bool(IHalfCloseableDescriptor.providedBy(transport))


def has_handshake(transport: object) -> bool:
    """Report whether `transport` is TLS, or on top of it."""
    return _tls(transport) is not None


def handshake_done(transport: object) -> bool:
    """Report whether the TLS handshake, if there is one, is over."""
    tls = _tls(transport)
    return tls is None or tls.getHandle().get_peer_finished() is not None


def _tls(transport: object) -> TLSMemoryBIOProtocol | None:
    inner: object | None = transport
    while inner is not None and not isinstance(inner, TLSMemoryBIOProtocol):
        inner = getattr(inner, "transport", None)
    return inner


def has_unread(transport: object) -> bool:
    """Report whether a connection has unread data, or an end that its protocol has not been told of yet.

    Under TLS the data may be of TLS itself, such as a session ticket, and nothing for the protocol.
    """
    connection = tcp_connection(transport)
    if connection is None:
        return False
    if connection.disconnecting:  # TLS has read the peer's close
        return True
    handle = connection.getHandle()
    if not isinstance(handle, socket.socket):
        return False
    if handle.fileno() < 0:
        return True
    # A read that finds nothing raises an exception, which costs twice as much as to poll.
    poll = select.poll()
    poll.register(handle.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def has_unsent(transport: object) -> bool:
    """Report whether the kernel does not take all that was written to `transport`; it is asked to."""
    if not _holds(transport):
        return False
    send_written(transport)
    return _holds(transport)


def _holds(transport: object) -> bool:
    inner: object | None = transport
    while isinstance(inner, TLSMemoryBIOProtocol):
        if holds_plain(inner):
            return True
        inner = inner.transport
    connection = tcp_connection(inner)
    return connection is not None and unsent(connection) > 0
