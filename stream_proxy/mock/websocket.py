"""WebSockets of the mock: a message handler behind autobahn's server protocol, at the pace asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.web.server import Request
from zope.interface import implementer

from stream_proxy.mock.control import Control
from stream_proxy.mock.messages import Hangup, Message, MessageHandler, Pause
from stream_proxy.mock.wire import invalid

_BATCH = 64
# Browsers cannot set headers on a WebSocket; they send their key as a subprotocol, which must not come back.
_KEY_PREFIX = "openai-insecure-api-key."
FAILURES = ("break", "break-mid-event", "hang")
"""The kinds of ``X-Mock-Fail`` that a WebSocket supports."""


def serve(
    reactor: IReactorTime,
    request: Request,
    control: Control,
    handler: MessageHandler,
    headers: tuple[tuple[str, str], ...],
) -> None:
    """Upgrade `request` to a WebSocket, with `headers` in the 101 response.

    :raises MockError: 400 for a failure that a WebSocket does not support.
    """
    if control.fail not in (None, *FAILURES):
        raise invalid("X-Mock-Fail", f"A WebSocket can only fail with {', '.join(FAILURES)}.")
    factory = WebSocketServerFactory(reactor=reactor, server="")
    factory.setProtocolOptions(
        webStatus=False,
        versions=[13],
        allowNullOrigin=True,  # the origin of a page opened from a file
        openHandshakeTimeout=0,  # the handshake is complete, and the timer would outlive the connection
        failByDrop=False,
        echoCloseCodeReason=True,
    )
    factory.protocol = lambda: _Socket(reactor, control, handler, dict(headers))  # type: ignore[assignment]

    def begin() -> None:
        WebSocketResource(factory).render(request)

    if not control.delay:
        begin()
        return
    waiting = reactor.callLater(control.delay, begin)
    request.notifyFinish().addErrback(lambda _: waiting.cancel())


@implementer(IPushProducer)
class _Socket(WebSocketServerProtocol):
    """One connection. Messages are taken from their iterators only while the client reads."""

    transport: Any

    def __init__(
        self, reactor: IReactorTime, control: Control, handler: MessageHandler, headers: dict[str, str]
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._control = control
        self._handler = handler
        self._headers = headers
        self._outgoing: deque[Iterator[Message | Pause | Hangup]] = deque()
        self._sent = 0
        self._paused = False
        self._call: IDelayedCall | None = None

    def onConnect(self, request: Any) -> tuple[str | None, dict[str, str]]:
        """Choose the subprotocol ``realtime``, else the first one offered that is not a key."""
        offers = [name for name in request.protocols if not name.startswith(_KEY_PREFIX)]
        return "realtime" if "realtime" in offers else next(iter(offers), None), self._headers

    def onOpen(self) -> None:
        """Send the first messages."""
        self.transport.unregisterProducer()  # HTTPChannel registered itself
        self.transport.registerProducer(self, True)
        self._enqueue(self._handler.on_open())

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Pass the message to the handler."""
        self._enqueue(self._handler.on_message(Message(payload, isBinary)))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """Drop what was not sent."""
        self.stopProducing()

    def _closeConnection(self, abort: bool = False) -> None:
        self.transport.unregisterProducer()
        super()._closeConnection(abort)

    def _enqueue(self, messages: Iterator[Message | Pause | Hangup]) -> None:
        self._outgoing.append(messages)
        self._schedule(0)

    def _schedule(self, seconds: float) -> None:
        if self._call is None and not self._paused:
            self._call = self._reactor.callLater(seconds, self._emit)

    def _emit(self) -> None:
        self._call = None
        for _ in range(1 if self._control.pace else _BATCH):
            message = self._next()
            if message is None:
                return
            if isinstance(message, Pause):
                self._schedule(message.seconds)
                return
            if isinstance(message, Hangup):
                self._hang_up(message)
                return
            if self._control.fail is not None and self._sent >= self._control.after:
                self._fail(message)
                return
            self.sendMessage(message.payload, message.binary)  # type: ignore[no-untyped-call,unused-ignore]
            self._sent += 1
            if self._paused:
                return
        self._schedule(self._control.pace)

    def _next(self) -> Message | Pause | Hangup | None:
        while self._outgoing:
            message = next(self._outgoing[0], None)
            if message is not None:
                return message
            self._outgoing.popleft()
        return None

    def _hang_up(self, hangup: Hangup) -> None:
        self._outgoing.clear()
        code = int.from_bytes(hangup.payload[:2], "big") if len(hangup.payload) >= 2 else None
        # Not sendClose, which refuses most of the codes that a server may send.
        self.sendCloseFrame(code=code, reasonUtf8=hangup.payload[2:] or None)  # type: ignore[no-untyped-call,unused-ignore]

    def _fail(self, message: Message) -> None:
        self._outgoing.clear()
        if self._control.fail == "break-mid-event":
            size = len(message.payload)
            self.transport.write(b"\x81\x7f" + size.to_bytes(8, "big") + message.payload[: size // 2])
        if self._control.fail != "hang":
            self._closeConnection()

    def pauseProducing(self) -> None:
        """Stop sending and reading: the client reads too slowly."""
        self._paused = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on: the client has caught up."""
        self._paused = False
        self.transport.resumeProducing()
        self._schedule(0)

    def stopProducing(self) -> None:
        """Drop the rest: the client has left."""
        self._paused = True
        self._outgoing.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None
