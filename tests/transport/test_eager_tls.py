"""Tests of TLS connections that encrypt and decrypt once for each turn."""

from __future__ import annotations

import os
from typing import Any

from OpenSSL import SSL, _util
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.ssl import optionsForClientTLS
from twisted.protocols.tls import BufferingTLSTransport
from zope.interface import implementer

from stream_proxy.transport.eager_write import send_promptly, tcp_connection
from tests.support.certificates import server_context, trust
from tests.support.loopback import LoopbackTestCase, reactor, turns
from tests.support.ways import take_ways
from tests.support.wire import Stream, all_gone


class _Pairs(LoopbackTestCase):
    """Pairs of TLS connections."""

    plain = False

    def setUp(self) -> None:
        take_ways(self, plain=self.plain)
        trust(self)

    async def pair(self, version: int | None = None) -> tuple[Stream, Stream]:
        """Return both ends of a connection, client first, which both are eager; the handshake is over.

        :param version: the newest version of TLS that is offered.
        """
        arrived: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            send_promptly(stream.transport)
            arrived.callback(stream)

        context = server_context("127.0.0.1")
        if version is not None:
            context.getContext().set_max_proto_version(version)
        service = await self.upstream(script, context)
        options: Any = optionsForClientTLS("127.0.0.1")
        client = Stream()
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", service.port)
        await connectProtocol(wrapClientTLS(options, endpoint), client)
        send_promptly(client.transport)
        client.write(b"begin")
        server = await arrived
        await server.exactly(5)
        server.write(b"begun")
        await client.exactly(5)
        self.addCleanup(self._drop, client)
        return client, server

    def _drop(self, client: Stream) -> Deferred[object]:
        if client.lost is None:
            client.abort()
        return Deferred.fromCoroutine(all_gone([client]))


class ExchangeTests(_Pairs):
    """What holds on every way."""

    async def test_sizes(self) -> None:
        """Every byte arrives, in both directions, however many there are."""
        near, far = await self.pair()
        for size in (1, 16_384, 16_385, 100_000, 3_000_000):
            data = os.urandom(size)
            near.write(data)
            self.assertTrue(await far.exactly(size) == data)
            far.transport.writeSequence([data[: size // 2], data[size // 2 :]])
            self.assertTrue(await near.exactly(size) == data)

    async def test_close(self) -> None:
        """A close comes after what was written, and is the orderly one of TLS, to both sides."""
        near, far = await self.pair()
        near.write(b"last ")
        near.write(b"words")
        near.close()
        near.write(b"too late")
        self.assertEqual(await far.rest(), b"last words")
        self.assertTrue((await far.gone()).check(ConnectionDone))
        self.assertTrue((await near.gone()).check(ConnectionDone))
        near.write(b"later still")

    async def test_cut(self) -> None:
        """A connection that ends without TLS's own close is no orderly end, but what came counts."""
        near, far = await self.pair()
        far.write(b"half of")
        await near.exactly(7)
        connection = tcp_connection(far.transport)
        assert connection is not None
        connection.loseConnection()
        self.assertTrue((await near.gone()).check(ConnectionLost))

    async def test_broken(self) -> None:
        """A record that cannot be decrypted ends its own connection, after what came before it."""
        near, far = await self.pair()
        other, others_far = await self.pair()
        received: list[bytes] = []

        def use_other(data: bytes) -> None:
            received.append(data)
            other.write(data)  # the error of this connection must not be taken for one of that

        near.dataReceived = use_other  # type: ignore[method-assign]
        connection: Any = tcp_connection(far.transport)
        near.transport.pauseProducing()
        far.write(b"good")
        await turns(2)
        connection.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        near.transport.resumeProducing()
        self.assertFalse((await near.gone()).check(ConnectionDone))
        self.assertEqual(received, [b"good"])
        other.write(b"!")
        await others_far.until(b"good!")

    async def test_abort(self) -> None:
        """A protocol that aborts while it reads gets nothing more, and sends nothing more."""
        near, far = await self.pair()
        received: list[bytes] = []

        def abort(data: bytes) -> None:
            received.append(data)
            near.write(b"never mind")
            near.abort()

        near.dataReceived = abort  # type: ignore[method-assign]
        far.write(b"x" * 10)
        far.write(b"y" * 10)
        await near.gone()
        self.assertEqual(len(received), 1)
        self.assertEqual(await far.rest(), b"")

    async def test_renegotiation(self) -> None:
        """Data goes on in both directions when a TLS 1.2 server renegotiates."""
        near, far = await self.pair(SSL.TLS1_2_VERSION)
        handle = far.transport.getHandle()
        handle.renegotiate()
        far.write(b"a")
        await near.until(b"a")
        near.write(b"b")
        await far.until(b"b")
        near.write(b"c" * 50_000)
        await far.exactly(50_000)
        far.write(b"d" * 50_000)
        await near.exactly(50_000)
        self.assertEqual(handle.total_renegotiations(), 1)

    async def test_producer(self) -> None:
        """A peer that reads nothing pauses the producer, and one that reads again resumes it."""
        near, far = await self.pair()
        producer = _Idle()
        near.transport.registerProducer(producer, True)
        far.transport.pauseProducing()
        near.write(b"x" * 8_000_000)
        await producer.paused
        far.transport.resumeProducing()
        await far.exactly(8_000_000)
        await producer.resumed
        near.transport.unregisterProducer()


class PlainExchangeTests(ExchangeTests):
    """The same on the plain way."""

    plain = True

    async def test_plain(self) -> None:
        """The plain way leaves Twisted's connection as it is."""
        near, _ = await self.pair()
        self.assertIs(type(near.transport), BufferingTLSTransport)


class EagerTests(_Pairs):
    """What only the fast way does."""

    async def test_together(self) -> None:
        """What a read leads to is encrypted once, and sent when the read has been handled."""
        near, far = await self.pair()
        connection: Any = tcp_connection(near.transport)
        written: list[int] = []
        write = connection.write

        def note(data: bytes) -> None:
            written.append(len(data))
            write(data)

        self.patch(connection, "write", note)

        def answer(data: bytes) -> None:
            near.write(data)
            near.write(data)

        near.dataReceived = answer  # type: ignore[method-assign]
        far.write(b"x" * 100)
        self.assertEqual(await far.exactly(200), b"x" * 200)
        self.assertEqual(len(written), 1)

    async def test_delivered_once(self) -> None:
        """The records of one read are delivered together, without an exception of pyOpenSSL's."""
        near, far = await self.pair()
        self.patch(SSL.Connection, "recv", lambda *_: self.fail("pyOpenSSL was asked"))
        received: list[int] = []
        done: Deferred[None] = Deferred()

        def count(data: bytes) -> None:
            received.append(len(data))
            if sum(received) == 40_000:
                done.callback(None)

        near.dataReceived = count  # type: ignore[method-assign]
        near.transport.pauseProducing()
        far.write(b"x" * 40_000)
        reactor.callLater(0, near.transport.resumeProducing)
        await done
        self.assertEqual(received, [40_000])

    async def test_close_producer(self) -> None:
        """While a producer is registered a close waits, and what it writes meanwhile is sent.

        Twisted closes before it encrypts the last of that.
        """
        near, far = await self.pair()
        near.transport.registerProducer(_Idle(), True)
        near.close()
        near.write(b"last words")
        near.transport.unregisterProducer()
        self.assertEqual(await far.rest(), b"last words")

    async def test_stale_error(self) -> None:
        """An error that other code left in OpenSSL's list is not this connection's."""
        near, far = await self.pair()
        lib, ffi = _util.lib, _util.ffi
        received: Deferred[bytes] = Deferred()

        def fail_first(data: bytes) -> None:
            junk = lib.BIO_new_mem_buf(b"junk", 4)
            lib.PEM_read_bio_X509(junk, ffi.NULL, ffi.NULL, ffi.NULL)
            lib.BIO_free(junk)
            self.assertNotEqual(lib.ERR_peek_error(), 0)
            near.write(b"answer")
            if not received.called:
                received.callback(data)

        near.dataReceived = fail_first  # type: ignore[method-assign]
        far.write(b"x")
        await received
        await far.exactly(6)
        far.write(b"y")
        await far.exactly(6)
        self.assertIsNone(near.lost)


@implementer(IPushProducer)
class _Idle:
    """Producer that produces nothing by itself."""

    def __init__(self) -> None:
        self.paused: Deferred[None] = Deferred()
        self.resumed: Deferred[None] = Deferred()

    def pauseProducing(self) -> None:
        if not self.paused.called:
            self.paused.callback(None)

    def resumeProducing(self) -> None:
        if not self.resumed.called:
            self.resumed.callback(None)

    def stopProducing(self) -> None:
        """Do nothing."""
