"""The mock's WebSockets: a speaker behind autobahn's server protocol, at its own pace."""

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
from stream_proxy.mock.speaker import Said, Speaker
from stream_proxy.mock.wire import ApiError

_BATCH = 64
_KEY = "openai-insecure-api-key."
FAILURES = ("break", "break-mid-event", "hang")
"""The failures of ``X-Mock-Fail`` that a WebSocket can have."""


def serve(
    reactor: IReactorTime,
    request: Request,
    control: Control,
    speaker: Speaker,
    headers: tuple[tuple[str, str], ...],
) -> None:
    """Make a WebSocket of `request`, with `headers` in its 101.

    :raises ApiError: 400 for a failure that only HTTP can have.
    """
    if control.fail not in (None, *FAILURES):
        raise ApiError(400, f"A WebSocket can only fail with {', '.join(FAILURES)}.", param="X-Mock-Fail")
    factory = WebSocketServerFactory(reactor=reactor, server="")
    factory.setProtocolOptions(
        webStatus=False,
        versions=[13],
        allowNullOrigin=True,  # a page that was opened as a file
        openHandshakeTimeout=0,  # it is in already, and the timer would outlast the connection
        failByDrop=False,
        echoCloseCodeReason=True,
    )
    factory.protocol = lambda: _Socket(reactor, control, speaker, dict(headers))  # type: ignore[assignment]

    def begin() -> None:
        WebSocketResource(factory).render(request)

    if not control.delay:
        begin()
        return
    waiting = reactor.callLater(control.delay, begin)
    request.notifyFinish().addErrback(lambda _: waiting.cancel())


@implementer(IPushProducer)
class _Socket(WebSocketServerProtocol):
    """One connection. What is to be said waits here while the client does not read."""

    transport: Any

    def __init__(
        self, reactor: IReactorTime, control: Control, speaker: Speaker, headers: dict[str, str]
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._control = control
        self._speaker = speaker
        self._headers = headers
        self._saying: deque[Iterator[Said]] = deque()
        self._sent = 0
        self._paused = False
        self._call: IDelayedCall | None = None

    def onConnect(self, request: Any) -> tuple[str | None, dict[str, str]]:
        """Choose ``realtime``, else the first subprotocol that is no key."""
        offers = [name for name in request.protocols if not name.startswith(_KEY)]
        return "realtime" if "realtime" in offers else next(iter(offers), None), self._headers

    def onOpen(self) -> None:
        """Speak first."""
        self.transport.unregisterProducer()  # the HTTP channel's
        self.transport.registerProducer(self, True)
        self._say(self._speaker.opened())

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Answer."""
        self._say(self._speaker.heard(Said(payload, isBinary)))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """Fall silent."""
        self.stopProducing()

    def _closeConnection(self, abort: bool = False) -> None:
        self.transport.unregisterProducer()
        super()._closeConnection(abort)

    def _say(self, messages: Iterator[Said]) -> None:
        self._saying.append(messages)
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
            if self._control.fail is not None and self._sent >= self._control.after:
                self._fail(message)
                return
            self.sendMessage(message.payload, message.binary)  # type: ignore[no-untyped-call,unused-ignore]
            self._sent += 1
            if self._paused:
                return
        self._schedule(self._control.pace)

    def _next(self) -> Said | None:
        while self._saying:
            message = next(self._saying[0], None)
            if message is not None:
                return message
            self._saying.popleft()
        return None

    def _fail(self, message: Said) -> None:
        self._saying.clear()
        if self._control.fail == "break-mid-event":
            size = len(message.payload)
            self.transport.write(b"\x81\x7f" + size.to_bytes(8, "big") + message.payload[: size // 2])
        if self._control.fail != "hang":
            self._closeConnection()

    def pauseProducing(self) -> None:
        """The client reads too slowly: say and hear nothing."""
        self._paused = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The client has caught up."""
        self._paused = False
        self.transport.resumeProducing()
        self._schedule(0)

    def stopProducing(self) -> None:
        """The client has left."""
        self._paused = True
        self._saying.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None
