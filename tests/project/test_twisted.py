"""Private names of Twisted, treq and autobahn that the proxy relies on; ``docs/twisted.md`` says why."""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Callable
from functools import cached_property
from types import FunctionType
from typing import Any
from unittest import skipUnless

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from hyperlink import EncodedURL
from OpenSSL import SSL, _util
from treq.client import HTTPClient
from twisted.internet import endpoints, tcp, unix
from twisted.internet import reactor as _reactor
from twisted.internet._sslverify import ClientTLSOptions, _verifyCB
from twisted.internet.address import IPv4Address
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web import client, http, server
from twisted.web._newclient import (
    HTTP11ClientProtocol,
    HTTPClientParser,
    Request,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
    _WrapperException,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from twisted.web.resource import Resource
from zope.interface import implementer

from stream_proxy.downstream.plain_request import PlainRequest
from stream_proxy.http.plain_head import PlainHead
from stream_proxy.transport import eager_tls, eager_write
from stream_proxy.upstream.treq_carrier import Carrier

reactor: Any = _reactor


def _noting(notes: list[Any], function: Callable[..., Any], *, result: bool = False) -> Callable[..., Any]:
    """Return `function` as one that also notes its arguments, or its result."""

    def noting(*arguments: Any) -> Any:
        returned = function(*arguments)
        notes.append(returned if result else arguments)
        return returned

    return noting


class _Channel(http.HTTPChannel):
    """A channel that notes what its hooks find."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def allHeadersReceived(self) -> None:
        self.seen.append((self._command, self._path, self._version))
        super().allHeadersReceived()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.seen.append(("bad", self._receivedHeaderSize, self._receivedHeaderCount))
        super()._respondToBadRequestAndDisconnect()

    def _finishRequestBody(self, data: bytes) -> None:
        self.seen.append(list(getattr(self._transferDecoder, "_trailerHeaders", ())))
        super()._finishRequestBody(data)


class _Silent(Resource):
    isLeaf = True

    def render_POST(self, request: server.Request) -> int:
        return server.NOT_DONE_YET

    render_GET = render_POST


class ChannelTests(SynchronousTestCase):
    """``twisted.web.http.HTTPChannel``."""

    def setUp(self) -> None:
        self.transport = StringTransport()
        make: Any = _Channel
        self.channel = make()
        self.channel.site = server.Site(_Silent(), reactor=Clock())
        self.channel.requestFactory = self.channel.site.requestFactory
        self.channel.callLater = Clock().callLater
        self.channel.makeConnection(self.transport)

    def test_channel_head(self) -> None:
        """The request line is in three attributes when the head is in, before ``requestReceived``."""
        self.channel.dataReceived(b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
        self.assertEqual(self.channel.seen, [(b"POST", b"/a?b", b"HTTP/1.1")])
        self.assertNotIn("method", vars(self.channel.requests[0]))

    def test_channel_bad_request(self) -> None:
        """One method reports each malformed head, and knows by then how large it was."""
        self.channel.maxHeaders = 1
        self.channel.dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n")
        (kind, size, count), *_ = self.channel.seen
        self.assertEqual((kind, count), ("bad", 2))
        self.assertGreater(size, len(b"GET / HTTP/1.1"))
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.transport.value(), b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def test_channel_buffers(self) -> None:
        """The start of a line is in ``_buffer``; what follows a request that is served in ``_dataBuffer``."""
        self.channel.dataReceived(b"GET / HT")
        self.assertEqual((self.channel._buffer, self.channel._busyReceiving), (b"GET / HT", False))
        self.channel.dataReceived(b"TP/1.1\r\nHost: x\r\n\r\n")
        self.channel.dataReceived(b"early")
        self.assertEqual((self.channel._dataBuffer, self.channel._buffer), ([b"early"], b""))

    def test_channel_holds(self) -> None:
        """Reading stops with more than ``_optimisticEagerReadSize`` held, and goes on after the response."""
        self.assertEqual(self.channel._optimisticEagerReadSize, 16_384)
        self.channel.dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.channel.dataReceived(b"\r\n" + bytes(16_383))
        self.assertEqual(self.transport.producerState, "paused")
        self.channel._dataBuffer = [b"\r\n"]
        self.channel.requests[0].finish()
        self.assertEqual((self.transport.producerState, self.channel._dataBuffer), ("producing", []))

    def test_channel_body(self) -> None:
        """A decoder is there as long as a body arrives, and has the trailers at its end."""
        self.channel.timeOut = 60
        self.channel.dataReceived(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
        )
        self.assertIsNotNone(self.channel._transferDecoder)
        self.channel._savedTimeOut = self.channel.setTimeout(None)
        self.channel.dataReceived(b"0\r\nT: v\r\n\r\n")
        self.assertIn([b"T: v"], [[bytes(line) for line in each] for each in self.channel.seen[1:]])
        self.assertIsNone(self.channel._transferDecoder)
        self.channel.requests[0].finish()
        self.assertEqual(self.channel.timeOut, 60)

    def test_channel_pause(self) -> None:
        """The network producer is the socket's; a full transport is noted in ``_waitingForTransport``."""
        self.channel._networkProducer.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        self.channel._networkProducer.resumeProducing()
        self.assertEqual(
            (self.transport.producerState, self.channel._waitingForTransport), ("producing", False)
        )
        self.channel.pauseProducing()
        self.assertTrue(self.channel._waitingForTransport)

    def test_channel_lane(self) -> None:
        """A length makes a decoder for the last request; what follows a request that is served is held."""
        self.channel.requests.append(self.channel.requestFactory(self.channel))
        self.channel._command, self.channel._path, self.channel._version = b"POST", b"/", b"HTTP/1.1"
        self.assertTrue(self.channel._maybeChooseTransferDecoder(b"Content-Length", b"3"))
        self.assertEqual(self.channel.length, 3)
        self.channel.requests[0].gotLength(3)
        self.channel.setRawMode()
        self.channel.dataReceived(b"abcdef")
        self.assertEqual(self.channel.requests[0].content.read(), b"abc")
        self.assertEqual((self.channel._handlingRequest, self.channel._dataBuffer), (True, [b"def"]))
        self.channel._busyReceiving = True
        self.channel.dataReceived(b"later")
        self.assertEqual(self.channel._buffer, b"later")

    def test_request_written(self) -> None:
        """A request that is made for HEAD, or encoded, says so; one that is written says that, too."""
        request = server.Request(self.channel)
        self.assertEqual((request._encoder, request._inFakeHead), (None, False))
        self.assertEqual((request.startedWriting, request.chunked, request.finished), (0, 0, 0))
        self.assertEqual((request.etag, request.lastModified), (None, None))
        self.channel.requests.append(request)
        request.startedWriting = request.chunked = 1
        request.finish()
        self.assertEqual(self.transport.value(), b"0\r\n\r\n")

    def test_request_attributes(self) -> None:
        """The constructor sets nothing that a plain request does not have."""
        made = set(vars(server.Request(self.channel)))
        plain = PlainRequest(self.channel, PlainHead(b"GET", b"/", [], None, 0))
        self.assertEqual({name for name in made if not hasattr(plain, name)}, set())
        lazy = {name for name, value in vars(PlainRequest).items() if isinstance(value, cached_property)}
        self.assertLessEqual(lazy | {"responseHeaders"}, made | {"args"})


class ConnectionTests(TestCase):
    """``twisted.internet.tcp.Connection``."""

    def setUp(self) -> None:
        ours, self.peer = socket.socketpair()
        self.addCleanup(self.peer.close)
        self.addCleanup(ours.close)
        ours.setblocking(False)
        self.reactor = MemoryReactorClock()
        self.connection: Any = tcp.Connection(ours, Protocol(), self.reactor)
        self.connection.connected = True

    def test_connection_buffers(self) -> None:
        """What is written and unsent is ``dataBuffer`` from ``offset`` on, and ``_tempDataLen`` beside it."""
        self.connection.write(b"abc")
        parts = len(self.connection.dataBuffer), self.connection.offset, self.connection._tempDataLen
        self.assertEqual(parts, (0, 0, 3))
        self.connection.doWrite()
        parts = len(self.connection.dataBuffer), self.connection.offset, self.connection._tempDataLen
        self.assertEqual(parts[0] - parts[1] + parts[2], 0)
        self.assertEqual(self.peer.recv(10), b"abc")

    def test_connection_writing(self) -> None:
        """A write calls ``startWriting``, as does ``loseConnection``; ``doWrite`` calls ``writeSomeData``."""
        called: list[Any] = []
        self.connection.startWriting = lambda: called.append("start")
        send = self.connection.writeSomeData
        self.connection.writeSomeData = _noting(called, send, result=True)
        self.connection.write(b"abc")
        self.assertEqual(called, ["start"])
        self.assertEqual(self.connection._tempDataBuffer, [b"abc"])
        self.connection.doWrite()
        self.assertEqual(called, ["start", 3])
        self.connection.loseConnection()
        self.assertEqual(called, ["start", 3, "start"])

    def test_connection_class(self) -> None:
        """The connections that a reactor makes may take a subclass for their class."""
        self.assertTrue(eager_write.FITS)
        for flag in ("_writeDisconnected", "_writeDisconnecting", "_aborting"):
            self.assertIs(getattr(self.connection, flag), False)
        for made, eager in eager_write._EAGER.items():
            connection: Any = made.__new__(made)
            connection.__class__ = eager
            self.assertTrue(IHalfCloseableDescriptor.providedBy(connection))
        self.assertIn("_dataReceived", unix.Server.doRead.__code__.co_names)
        self.assertFalse(self.connection.TLS)

    def test_wrapping_protocol(self) -> None:
        """An endpoint's protocol does nothing but call the one that it wraps, once that is connected."""
        made = Protocol()
        connected: Deferred[Any] = Deferred()
        wrapping: Any = endpoints._WrappingProtocol(connected, made)
        wrapping.makeConnection(self.connection)
        self.assertIs(wrapping._wrappedProtocol, made)
        self.assertIs(made.transport, self.connection)
        self.assertIs(self.successResultOf(connected), made)
        hooks = {"dataReceived", "connectionLost", "readConnectionLost", "writeConnectionLost"}
        others = {"fileDescriptorReceived", "handshakeCompleted", "logPrefix", "connectionMade", "__init__"}
        made_by = vars(endpoints._WrappingProtocol).items()
        own = {name for name, value in made_by if isinstance(value, FunctionType)}
        self.assertEqual(own - others, hooks)
        for name in hooks:
            self.assertEqual(getattr(wrapping, name).__code__.co_names, ("_wrappedProtocol", name))


class TLSConnectionTests(SynchronousTestCase):
    """``twisted.protocols.tls`` and pyOpenSSL, as connections with TLS use them."""

    def setUp(self) -> None:
        options: Any = optionsForClientTLS("example.org")
        factory = TLSMemoryBIOFactory(options, True, Factory.forProtocol(Protocol), Clock())
        self.tls: Any = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        self.transport = StringTransport()
        self.tls.makeConnection(self.transport)

    def test_tls_connection(self) -> None:
        """The state, the methods, and ``write`` set on the instance for the aggregator."""
        self.assertTrue(eager_tls.FITS)
        self.assertIs(type(self.tls), BufferingTLSTransport)
        state = (
            self.tls._handshakeDone,
            self.tls._appSendBuffer,
            self.tls._lostTLSConnection,
            self.tls._aborted,
        )
        self.assertEqual(state, (False, [], False, False))
        self.assertEqual(self.tls.write, self.tls._aggregator.write)
        self.tls.write(b"early")
        self.tls._aggregator.close()
        self.assertEqual(self.tls._appSendBuffer, [b"early"])
        self.tls._write(b"more")
        self.assertEqual(self.tls._appSendBuffer, [b"early", b"more"])
        self.tls._tlsShutdownFinished(None)
        self.assertTrue(self.tls._lostTLSConnection)
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.tls._shutdownTLS())

    def test_openssl(self) -> None:
        """OpenSSL's functions take a connection's pointers, and a result can be made an exception."""
        connection = self.tls._tlsConnection
        self.assertGreater(len(self.transport.value()), 100)  # the ClientHello
        buffer = _util.ffi.new_allocator(should_clear_after_alloc=False)("char[]", 16)
        self.assertLess(_util.lib.BIO_read(connection._from_ssl, buffer, 16), 0)
        self.assertLess(count := _util.lib.SSL_read(connection._ssl, buffer, 16), 0)
        error = _util.lib.SSL_get_error(connection._ssl, count)
        self.assertEqual(error, _util.lib.SSL_ERROR_WANT_READ)
        self.assertRaises(SSL.WantReadError, connection._raise_ssl_error, connection._ssl, count)
        self.assertEqual(_util.ffi.unpack(_util.ffi.from_buffer("char[]", b"abc"), 2), b"ab")
        waiting = [_util.lib.BIO_get_mem_data(connection._into_ssl, _util.ffi.NULL)]
        self.assertEqual(_util.lib.BIO_write(connection._into_ssl, b"\x16\x03", 2), 2)
        waiting.append(_util.lib.BIO_get_mem_data(connection._into_ssl, _util.ffi.NULL))
        self.assertEqual(waiting, [0, 2])

    @skipUnless(sys.platform == "linux", "epoll is Linux's")
    def test_epoll(self) -> None:
        """The turn is ``doPoll``, over ``_poller`` and ``_selectables``."""
        from twisted.internet.epollreactor import EPollReactor

        from stream_proxy.transport import lean_epoll

        self.assertTrue(lean_epoll.FITS)
        self.assertIs(EPollReactor.run, ReactorBase.run)
        self.assertEqual(
            (EPollReactor.mainLoop, EPollReactor.runUntilCurrent, EPollReactor.timeout),
            (ReactorBase.mainLoop, ReactorBase.runUntilCurrent, ReactorBase.timeout),
        )
        self.assertIs(EPollReactor.doIteration, EPollReactor.doPoll)
        made: Any = EPollReactor()
        self.addCleanup(made._poller.close)
        self.addCleanup(lambda: [each.connectionLost(None) for each in list(made._internalReaders)])
        ours, peer = socket.socketpair()
        self.addCleanup(peer.close)
        connection = tcp.Connection(ours, Protocol(), made)
        made.addReader(connection)
        self.assertIs(made._selectables[ours.fileno()], connection)
        peer.send(b"x")
        self.assertIn((ours.fileno(), select.EPOLLIN), made._poller.poll(0, 10))
        made._disconnectSelectable(connection, ConnectionDone(), True)
        self.assertNotIn(connection, made._selectables.values())


@implementer(IBodyProducer)
class _Upload:
    """A body that does not end before the test wants it to."""

    length = 2

    def __init__(self) -> None:
        self.sent: Deferred[None] = Deferred()

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(b"ab")
        return self.sent

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


def _request(body: Any = None, **options: Any) -> Any:
    return Request._construct(
        b"POST", b"/a|b?[]#f", Headers({b"Host": [b"h"], b"X": [b"1", b"2"]}), body, **options
    )


class ClientTests(SynchronousTestCase):
    """``twisted.web._newclient``."""

    def setUp(self) -> None:
        self.transport = StringTransport()
        self.quiescent: list[Any] = []
        self.protocol: Any = HTTP11ClientProtocol(self.quiescent.append)
        self.protocol.makeConnection(self.transport)

    def test_request_verbatim(self) -> None:
        """``_construct`` takes any target and repeated fields, and both go out as they are."""
        self.protocol.request(_request(persistent=True))
        self.assertTrue(self.transport.value().startswith(b"POST /a|b?[]#f HTTP/1.1\r\n"))
        self.assertIn(b"X: 1\r\nX: 2\r\n", self.transport.value())

    def test_client_states(self) -> None:
        """A connection is quiescent before and after a request; its parser exists in between."""
        self.assertEqual((self.protocol._state, self.protocol._parser), ("QUIESCENT", None))
        finished: list[Any] = []
        name = "_finishResponse_WAITING"
        finish = getattr(self.protocol, name)
        setattr(self.protocol, name, _noting(finished, finish))
        response = self.protocol.request(_request(persistent=True))
        self.assertEqual(self.protocol._state, "WAITING")
        self.assertEqual(self.protocol._parser.state, "STATUS")
        self.transport.clear()
        self.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nConnection: x\r\nContent-Length: 1\r\n\r\n")
        self.assertEqual(self.protocol._parser.connHeaders.getRawHeaders(b"Connection"), [b"x"])
        self.successResultOf(response).deliverBody(Protocol())
        self.protocol.dataReceived(b"z")
        self.assertEqual((finished, self.protocol._state), ([(b"",)], "QUIESCENT"))
        self.assertEqual((self.protocol._parser, self.quiescent), (None, [self.protocol]))
        self.assertTrue(hasattr(HTTP11ClientProtocol, "_finishResponse_TRANSMITTING"))
        self.assertFalse(hasattr(HTTP11ClientProtocol, "_finishResponse_CONNECTION_LOST"))
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.protocol._state, "CONNECTION_LOST")

    def test_client_early_response(self) -> None:
        """``_responseDeferred`` fires with the head; the result of ``request`` waits for the upload."""
        upload = _Upload()
        result = self.protocol.request(_request(upload, persistent=True))
        self.assertEqual(self.protocol._state, "TRANSMITTING")
        early = self.protocol._responseDeferred
        self.protocol.dataReceived(b"HTTP/1.1 413 No\r\nContent-Length: 5\r\n\r\n")
        self.assertTrue(early.called)
        self.assertNoResult(result)
        upload.sent.callback(None)
        self.successResultOf(result)

    def test_client_gives_up(self) -> None:
        """``_giveUp`` gets whatever the parser raises; a failed upload is GENERATION_FAILED."""
        reasons: list[Any] = []
        give_up = self.protocol._giveUp
        self.protocol._giveUp = _noting(reasons, give_up)
        result = self.protocol.request(_request(persistent=True))
        self.protocol.dataReceived(b"this is no HTTP\r\n\r\n")
        self.assertEqual(len(reasons), 1)
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(result, ResponseFailed)
        other: Any = HTTP11ClientProtocol()
        other.makeConnection(StringTransport())
        upload = _Upload()
        failed = other.request(_request(upload))
        upload.sent.errback(Failure(ConnectionLost()))
        self.assertEqual(other._state, "GENERATION_FAILED")
        self.failureResultOf(failed)

    def test_client_parser_ends(self) -> None:
        """``_disconnectParser`` ends each response; its parser still has a ``bodyDecoder`` then."""
        disconnected: list[Any] = []
        self.protocol._disconnectParser = _noting(disconnected, self.protocol._disconnectParser)
        response = self.protocol.request(_request(persistent=True))
        parser = self.protocol._parser
        self.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.successResultOf(response).deliverBody(Protocol())
        self.protocol.dataReceived(b"1\r\na\r\n0\r\n\r\n")
        self.assertEqual((len(disconnected), self.protocol._parser), (1, None))
        self.assertIsInstance(parser.bodyDecoder, http._ChunkedTransferDecoder)

    def test_parser_hooks(self) -> None:
        """A parser may change its class, and has its header hook and decoders where we look for them."""

        fields: list[Any] = []

        class Ours(HTTPClientParser):
            lines: list[bytes] = []

            def headerReceived(self, name: bytes, value: bytes) -> None:
                fields.append((name, value))
                super().headerReceived(name, value)

            def lineReceived(self, line: bytes) -> None:
                self.lines.append(line)
                super().lineReceived(line)

        parser: Any = HTTPClientParser(_request(), lambda rest: None)
        parser.__class__ = Ours
        parser.makeConnection(StringTransport())
        head: list[Any] = []
        parser._responseDeferred.addCallback(head.append)
        self.assertIsNone(parser._partialHeader)
        parser.dataReceived(b"HTTP/1.1 200 OK\r\nA: b\r\n")
        self.assertEqual(parser.state, "HEADER")
        self.assertIsNotNone(parser._partialHeader)
        parser.dataReceived(b"Transfer-Encoding: chunked\r\n\r\n")
        self.assertEqual((parser.state, len(head)), ("BODY", 1))
        self.assertEqual(fields, [(b"A", b"b"), (b"Transfer-Encoding", b"chunked")])
        self.assertIn(b"A: b", [line.rstrip(b"\r") for line in Ours.lines])
        self.assertIs(HTTPClientParser._transferDecoders[b"chunked"], http._ChunkedTransferDecoder)
        self.assertRaises(
            http._DataLoss, http._ChunkedTransferDecoder(fields.append, fields.append).noMoreData
        )
        self.assertIsInstance(parser.response._bodyBuffer, list)  # the body waits for deliverBody

    def test_failures(self) -> None:
        """The failures of a request carry the reasons below them."""
        reason = Failure(ConnectionLost())
        for kind in (ResponseFailed, ResponseNeverReceived, RequestTransmissionFailed):
            error = kind([reason])
            self.assertIsInstance(error, _WrapperException)
            self.assertEqual(error.reasons, [reason])


class PoolTests(SynchronousTestCase):
    """``twisted.web.client.HTTPConnectionPool``."""

    def test_pool(self) -> None:
        """A pool gives its callback to new connections, keeps idle ones by key, and wraps them."""
        kept: list[Any] = []

        class Pool(client.HTTPConnectionPool):
            def _putConnection(self, key: Any, connection: Any) -> None:
                kept.append((key, connection))
                super()._putConnection(key, connection)

        made: list[Any] = []

        class Endpoint:
            def connect(self, factory: Any) -> Deferred[Any]:
                connection: Any = HTTP11ClientProtocol(factory._quiescentCallback)
                connection.makeConnection(StringTransport())
                made.append(connection)
                return succeed(connection)

        pool: Any = Pool(MemoryReactorClock())
        self.successResultOf(pool._newConnection("key", Endpoint()))
        made[0]._quiescentCallback(made[0])
        self.assertEqual(kept, [("key", made[0])])
        self.assertEqual((pool._connections["key"], list(pool._timeouts)), ([made[0]], [made[0]]))
        again = self.successResultOf(pool.getConnection("key", Endpoint()))
        self.assertIs(again._clientProtocol, made[0])
        self.assertEqual(len(made), 1)
        pool.retryAutomatically = False
        made[0]._quiescentCallback(made[0])
        self.assertIs(self.successResultOf(pool.getConnection("key", Endpoint())), made[0])


class TLSTests(SynchronousTestCase):
    """``twisted.internet._sslverify``."""

    def test_verification(self) -> None:
        """Twisted's check of a certificate is made of a connection, the kind of name and the name."""
        options: Any = optionsForClientTLS("example.com")
        self.assertIsInstance(options, ClientTLSOptions)
        self.assertEqual((options._hostnameIsDnsName, options._hostnameASCII), (True, "example.com"))
        tls: Any = object()
        verify = _verifyCB(tls, True, "example.com")
        connection: Any = None
        self.assertTrue(verify(connection, connection, 0, 1, True))  # not the leaf: only the chain counts
        self.assertFalse(verify(connection, connection, 0, 1, False))


class TreqTests(SynchronousTestCase):
    """``treq``."""

    def test_treq_carries(self) -> None:
        """treq calls its agent once, and its response has the agent's status and body transport."""
        calls: list[tuple[bytes, bytes]] = []

        class Response:
            code = 302
            headers = Headers({b"Location": [b"/elsewhere"]})

            def deliverBody(self, protocol: Any) -> None:
                protocol.dataReceived(b"body")

        class Agent:
            def request(
                self, method: bytes, uri: bytes, headers: Any = None, body: Any = None
            ) -> Deferred[Any]:
                calls.append((method, uri))
                response: Any = Response()
                response.headers = Headers()
                return succeed(response)

        agent: Any = Agent()
        response: Any = self.successResultOf(
            HTTPClient(agent).request(
                "GET", EncodedURL.from_text("http://u/"), allow_redirects=False, unbuffered=True
            )
        )
        self.assertEqual((response.code, calls), (302, [(b"GET", b"http://u/")]))
        body: list[bytes] = []
        reader: Any = Protocol()
        reader.dataReceived = body.append
        response.deliverBody(reader)
        self.assertEqual(body, [b"body"])

    def test_treq_carrier(self) -> None:
        """Our client is one of treq's, and its agent gets what it got, in the same order."""
        asked: list[Any] = []

        class Agent:
            def ask(self, *arguments: Any) -> str:
                asked.append(arguments)
                return "asking"

            def request(self, *arguments: Any) -> str:
                asked.append(arguments)
                return "deferred"

        agent: Any = Agent()
        carrier: Any = Carrier(agent)
        self.assertIsInstance(carrier, HTTPClient)
        fields, body = [(b"a-B", b"c")], b"body"
        self.assertEqual(carrier.ask(b"pUt", b"/?a[]=|", fields, body, self), "asking")
        self.assertEqual(carrier.request(b"pUt", b"/?a[]=|", headers=fields, data=body), "deferred")
        self.assertEqual(
            asked, [(b"pUt", b"/?a[]=|", fields, body, self), (b"pUt", b"/?a[]=|", fields, body)]
        )


_KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
_ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
_UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade"


class AutobahnTests(SynchronousTestCase):
    """autobahn's protocols, used for handshakes alone."""

    def server(self) -> tuple[Any, Deferred[Any], list[Any]]:
        """Return a server protocol, what its ``onConnect`` returns, and what its hooks were called with."""
        decision: Deferred[Any] = Deferred()
        called: list[Any] = []

        class Server(WebSocketServerProtocol):
            def onConnect(self, request: object) -> Any:
                return decision

            def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
                called.append(bytes(data))

            def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
                called.append(("failed", reason, code))

            def _onOpen(self) -> None:
                called.append("open")

        factory = WebSocketServerFactory(reactor=Clock(), server="")
        factory.setProtocolOptions(openHandshakeTimeout=0, versions=[13], webStatus=False)
        protocol: Any = Server()
        protocol.factory = factory
        protocol.makeConnection(StringTransport())
        return protocol, decision, called

    def test_autobahn_server(self) -> None:
        """A client's head is checked at once; the 101 waits for ``onConnect`` and uses ``sendData``."""
        protocol, decision, called = self.server()
        head = b"GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a, b\r\n"
        protocol._dataReceived(head + _UPGRADE + b"\r\n" + _KEY + b"\r\n\r\n")
        self.assertEqual((protocol.websocket_protocols, called), (["a", "b"], []))
        decision.callback(("b", {"X-One": ["1", "2"]}))
        response, opened = called
        self.assertEqual(opened, "open")
        self.assertIn(_ACCEPT, response)
        self.assertEqual(response.count(b"X-One: "), 2)
        self.assertIn(b"Sec-WebSocket-Protocol: b\r\n", response)
        protocol, _, called = self.server()
        protocol._dataReceived(head + _UPGRADE + b"\r\n" + _KEY + b"\r\n\r\n")
        protocol.succeedHandshake(("b", {"X-One": ["1", "2"]}))
        self.assertEqual(called, [response, "open"])
        protocol, _, called = self.server()
        protocol._dataReceived(head + _UPGRADE + b"\r\n\r\n")
        self.assertEqual([each[0] for each in called], ["failed"])

    def test_autobahn_client(self) -> None:
        """An upstream's 101 is checked against ``websocket_key``; only ``startHandshake`` writes."""
        called: list[Any] = []

        class Client(WebSocketClientProtocol):
            def startHandshake(self) -> None:
                self.websocket_key = _KEY.partition(b": ")[2]

            def failHandshake(self, reason: str) -> None:
                called.append(("failed", reason))

            def _onOpen(self) -> None:
                called.append(bytes(self.data))
                self.data = b""

        def answered(accept: bytes) -> Any:
            factory = WebSocketClientFactory("ws://upstream/", reactor=Clock(), protocols=["a", "b"])
            factory.setProtocolOptions(openHandshakeTimeout=0, version=18)
            protocol: Any = Client()
            protocol.factory = factory
            protocol.makeConnection(transport := StringTransport())
            head = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Protocol: b\r\n"
            protocol._dataReceived(head + _UPGRADE + b"\r\n" + accept + b"\r\n\r\nrest")
            self.assertEqual(transport.value(), b"")
            return protocol

        protocol = answered(_ACCEPT)
        self.assertEqual((called, protocol.websocket_protocol_in_use), ([b"rest"], "b"))
        called.clear()
        answered(b"Sec-WebSocket-Accept: wrong")
        self.assertEqual(called[0][0], "failed")

    def test_autobahn_alone(self) -> None:
        """A handshake is checked without a transport, between ``_connectionMade`` and ``_onOpen``."""
        called: list[str] = []

        class Check(WebSocketClientProtocol):
            def startHandshake(self) -> None:
                self.websocket_key = _KEY.partition(b": ")[2]

            def _onOpen(self) -> None:
                called.append("open")

        factory = WebSocketClientFactory("ws://upstream/", reactor=Clock())
        factory.setProtocolOptions(openHandshakeTimeout=0, version=18)
        check: Any = Check()
        check.factory = factory
        check._connectionMade()
        check._dataReceived(b"HTTP/1.1 101 OK\r\n" + _UPGRADE + b"\r\n" + _ACCEPT + b"\r\n\r\n")
        self.assertEqual(called, ["open"])

    def test_autobahn_close(self) -> None:
        """A close handshake ends in ``_closeConnection``."""
        called: list[bool] = []

        class Closing(WebSocketServerProtocol):
            def _closeConnection(self, abort: bool = False) -> None:
                called.append(abort)

        factory = WebSocketServerFactory(reactor=Clock())
        factory.setProtocolOptions(openHandshakeTimeout=0)
        protocol: Any = Closing()
        protocol.factory = factory
        protocol.makeConnection(transport := StringTransport())
        transport.registerProducer(protocol, True)
        protocol.dropConnection(abort=True)
        self.assertEqual(called, [True])


class PortTests(TestCase):
    """``twisted.internet.tcp.Port`` and ``unix.Port``."""

    def test_ports(self) -> None:
        """A UNIX port adopts an open socket; ``sessionno`` counts what ``doRead`` has accepted."""
        accepted: list[Any] = []

        class Counting(Factory):
            def buildProtocol(self, addr: object) -> Protocol:
                accepted.append(protocol := Protocol())
                return protocol

        path = os.path.relpath(os.path.join(self.mktemp()))
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        port: Any = unix.Port._fromListeningDescriptor(reactor, listener.fileno(), Counting())
        port.mode = 0o600
        port.startListening()
        self.assertEqual(port.sessionno, 0)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            port.doRead()
            self.assertEqual((port.sessionno, len(accepted)), (1, 1))
            accepted[0].transport.abortConnection()
            tcp.Port.connectionLost(port, Failure(ConnectionDone()))
        self.assertTrue(os.path.exists(path))
        self.assertIsNot(unix.Port.connectionLost, tcp.Port.connectionLost)
