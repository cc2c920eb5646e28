"""Eager TLS: connections that encrypt once for each turn, and decrypt each read without an exception.

Twisted keeps small writes for a delayed call, and reads record by record until pyOpenSSL raises that there is
no more. A subclass asks OpenSSL itself, once the handshake is over. Whatever is not plain data on an open
connection, such as a renegotiation, the peer's close or an error, is left to Twisted's methods.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from OpenSSL import _util
from OpenSSL.SSL import Connection, Error, ZeroReturnError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from stream_proxy.transport.turn import Turn, turn_of
from stream_proxy.transport.ways import plain_ways, uses

_openssl: Any = _util.lib
_allocate: Any = _util.ffi.new_allocator(should_clear_after_alloc=False)
_contents: Any = _util.ffi.unpack
_null: Any = _util.ffi.NULL
_from_buffer: Any = _util.ffi.from_buffer
#: The longest plaintext of a record (RFC 8446 section 5.1).
_RECORD_BYTES: Final = 2**14
#: The most that encryption adds to a record (RFC 8446 section 5.2), its header included.
_ADDED_BYTES: Final = 5 + 256
#: As much written at once is encrypted at once, as Twisted does.
_FULL_BYTES: Final = 64_000

#: Whether pyOpenSSL and Twisted have the insides that are used here.
FITS: Final = (
    all(
        hasattr(_openssl, name)
        for name in (
            "SSL_read",
            "SSL_write",
            "SSL_get_error",
            "BIO_read",
            "BIO_write",
            "BIO_get_mem_data",
            "ERR_clear_error",
        )
    )
    and uses(Connection.recv, "_ssl", "_raise_ssl_error")
    and uses(Connection.bio_write, "_into_ssl", "BIO_write")
    and uses(Connection.bio_read, "_from_ssl")
    and uses(TLSMemoryBIOProtocol.dataReceived, "_tlsConnection", "_handshakeDone", "_appSendBuffer")
    and uses(
        TLSMemoryBIOProtocol._flushReceiveBIO,
        "_lostTLSConnection",
        "_aborted",
        "_shutdownTLS",
        "_tlsShutdownFinished",
        "_flushSendBIO",
    )
    and uses(TLSMemoryBIOProtocol.write, "disconnecting", "_producer", "_write")
    and uses(BufferingTLSTransport.loseConnection, "_aggregator")
)


class _EagerTLS(BufferingTLSTransport):
    """TLS connection that exchanges plain data with OpenSSL itself."""

    _turn: Turn
    _parts: list[bytes]
    _size = 0
    #: It will be flushed when the turn ends.
    _queued = False

    def write(self, data: bytes) -> None:
        if not data or not self.connected:
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > _FULL_BYTES:
            self._encrypt()
        elif not self._queued:
            self._queued = True
            self._turn.add(self)

    def writeSequence(self, sequence: Iterable[bytes]) -> None:
        self.write(b"".join(sequence))

    def flush(self) -> None:
        """Encrypt what was written in this turn, and write it to the connection below."""
        self._queued = False
        if self._parts:
            self._encrypt()

    def _encrypt(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if not self._is_plain or self.disconnecting:
            TLSMemoryBIOProtocol.write(self, data)
            return
        ssl = self._tlsConnection._ssl
        plain = _from_buffer(data)
        at, size = 0, len(data)
        _openssl.ERR_clear_error()  # what others left there would be taken for errors of this connection
        while at < size:
            count = _openssl.SSL_write(ssl, plain + at, min(size - at, _RECORD_BYTES))
            if count <= 0:
                break
            at += count
        self._send_records(size + (size // _RECORD_BYTES + 1) * _ADDED_BYTES)
        if at < size:
            TLSMemoryBIOProtocol._write(self, data[at:])  # Twisted's meets the reason again

    def _send_records(self, size: int) -> None:
        """Write what OpenSSL has for the peer, probably less than `size` bytes, to the connection below."""
        source, connection = self._tlsConnection._from_ssl, self.transport
        assert connection is not None
        buffer = _allocate("char[]", size)
        while (count := _openssl.BIO_read(source, buffer, size)) > 0:
            connection.write(_contents(buffer, count))
            if count < size:
                break

    @property
    def _is_plain(self) -> bool:
        """Whether nothing but data is exchanged: there is no handshake under way, and no end."""
        return (
            self._handshakeDone
            and not self._appSendBuffer
            and not self._lostTLSConnection
            and not self._aborted
            and self._tlsConnection is not None
        )

    def dataReceived(self, data: bytes) -> None:
        if not self._is_plain:
            TLSMemoryBIOProtocol.dataReceived(self, data)
            return
        connection = self._tlsConnection
        ssl, came = connection._ssl, connection._into_ssl
        _openssl.BIO_write(came, data, len(data))
        buffer = _allocate("char[]", _RECORD_BYTES)
        read: list[bytes] = []
        end: Exception | None = None
        _openssl.ERR_clear_error()
        while True:
            count = _openssl.SSL_read(ssl, buffer, _RECORD_BYTES)
            if count <= 0:
                if _openssl.SSL_get_error(ssl, count) != _openssl.SSL_ERROR_WANT_READ:
                    # At once, because the protocol may use OpenSSL, which has but one list of errors.
                    end = _reason(connection, count)
                break
            read.append(_contents(buffer, count))
            # Most often a read is one record. OpenSSL takes no more than that from what came.
            if not _openssl.BIO_get_mem_data(came, _null):
                break
        if read:
            self.wrappedProtocol.dataReceived(read[0] if len(read) == 1 else b"".join(read))
        if self._tlsConnection is None:
            return
        if end is not None and not self._lostTLSConnection:
            self._end(end)
        if _openssl.BIO_get_mem_data(connection._from_ssl, _null):
            self._send_records(_RECORD_BYTES)

    def _end(self, reason: Exception) -> None:
        """Do what Twisted's does after such an exception."""
        if isinstance(reason, ZeroReturnError):
            self.flush()
            TLSMemoryBIOProtocol._shutdownTLS(self)
            TLSMemoryBIOProtocol._tlsShutdownFinished(self, None)
        else:
            TLSMemoryBIOProtocol._tlsShutdownFinished(self, Failure(reason))

    def loseConnection(self) -> None:
        self.flush()
        TLSMemoryBIOProtocol.loseConnection(self)

    def unregisterProducer(self) -> None:
        self.flush()  # after a loseConnection, this is the close
        TLSMemoryBIOProtocol.unregisterProducer(self)

    def abortConnection(self) -> None:
        self._parts = []
        TLSMemoryBIOProtocol.abortConnection(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._parts = []
        TLSMemoryBIOProtocol.connectionLost(self, reason)


def _reason(connection: Connection, result: int) -> Exception:
    """Return pyOpenSSL's exception for the failed call that returned `result`."""
    try:
        connection._raise_ssl_error(connection._ssl, result)
    except Error as error:
        return error
    return Error([])


def holds_plain(connection: TLSMemoryBIOProtocol) -> bool:
    """Report whether `connection` has been given data that is not encrypted yet."""
    return bool(connection._appSendBuffer or (isinstance(connection, _EagerTLS) and connection._parts))


def encrypt_promptly(transport: object) -> None:
    """Let `transport`, if it is one of Twisted's TLS connections, encrypt and decrypt once for each turn."""
    if type(transport) is not BufferingTLSTransport or not FITS or plain_ways():
        return
    transport._aggregator.close()
    del transport._aggregator, transport.write  # both lead back here
    transport.__class__ = _EagerTLS
    assert isinstance(transport, _EagerTLS)
    transport._parts = []
    transport._turn = turn_of(IReactorTime(transport.reactor))
