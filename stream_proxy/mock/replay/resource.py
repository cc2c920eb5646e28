"""Web resource that serves a recording again: responses, streams and WebSockets, at their pace or at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from stream_proxy.http.headers import raw_headers
from stream_proxy.http.upgrade import wants_websocket
from stream_proxy.mock.control import Control
from stream_proxy.mock.delivery import Delivery
from stream_proxy.mock.messages import Hangup, Message, Pause
from stream_proxy.mock.replay.choice import Choice, answer_for
from stream_proxy.mock.replay.recording import RecordedAnswer, RecordedExchange, RecordedMessage
from stream_proxy.mock.websocket import serve
from stream_proxy.mock.wire import Ending, HTTPResponse, MockError

#: Fields that belong to the connection or to a body as it was then, or whose value was blanked.
_OWN = frozenset(
    {
        *("connection", "keep-alive", "transfer-encoding", "upgrade", "content-length", "content-encoding"),
        *("date", "server", "set-cookie", "sec-websocket-accept", "sec-websocket-protocol"),
        *("sec-websocket-extensions", "x-capture-cut"),
    }
)
_BLANKED = "***"
_BINARY, _CLOSE = 2, 8


class ReplayResource(Resource):
    """A recording, served on every path of its requests.

    :param reactor: times the pauses.
    :param exchanges: what was recorded.
    :param paced: keep the pauses of the recording.
    """

    isLeaf = True

    def __init__(self, reactor: IReactorTime, exchanges: Sequence[RecordedExchange], *, paced: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self._reactor = reactor
        self._choice = Choice(exchanges)
        self._paced = paced

    def render(self, request: Request) -> int:
        """Serve what was recorded for a request."""
        response, delay = self._respond(request)
        if response is not None:
            Delivery(self._reactor, request, response, delay if self._paced else 0.0, 0.0)
        return NOT_DONE_YET

    def _respond(self, request: Request) -> tuple[HTTPResponse | None, float]:
        assert request.content is not None
        method, target = request.method.decode("latin-1"), request.uri.decode("latin-1")
        body = request.content.read()
        exchange = self._choice.find(method, target, body)
        if exchange is None:
            return self._nothing(f"Nothing was recorded for {method} {target.partition('?')[0]}"), 0.0
        if exchange.answer is not None and exchange.answer.status == 101:
            return self._open(request, exchange), 0.0
        answer = answer_for(exchange, body)
        assert answer is not None  # the recording has only exchanges with one
        return self._response(answer), answer.at

    def _nothing(self, problem: str) -> HTTPResponse:
        text = f"{problem}; there is: {self._choice.listing()}."
        return MockError(404, text, code="not_recorded").response()

    def _open(self, request: Request, exchange: RecordedExchange) -> HTTPResponse | None:
        fields = raw_headers(request.requestHeaders.getAllRawHeaders())
        if not wants_websocket(request.method, fields):
            return self._nothing("A WebSocket was recorded here: send its handshake")
        assert exchange.answer is not None
        handler = Replay(exchange.messages, paced=self._paced)
        try:
            serve(self._reactor, request, Control(), handler, _headers(exchange.answer))
        except MockError as error:
            return error.response()
        return None

    def _response(self, answer: RecordedAnswer) -> HTTPResponse:
        headers = _headers(answer)
        given = {name.lower(): value for name, value in headers}
        paced = self._paced and (answer.is_stream or len(answer.pieces) > 1)
        body = _paced(answer) if paced or answer.is_stream else answer.body
        return HTTPResponse(
            body,
            answer.status,
            given.get("content-type", "application/octet-stream"),
            headers,
            Ending.FINISH if answer.whole else Ending.BREAK,
            paced=self._paced,
        )


class Replay:
    """The upstream's side of a recorded WebSocket: what followed each of the client's messages."""

    def __init__(self, messages: Sequence[RecordedMessage], *, paced: bool) -> None:
        self._messages = list(messages)
        self._paced = paced
        self._at = 0
        self._last = messages[0].at if messages else 0.0

    def on_open(self) -> Iterator[Message | Pause | Hangup]:
        """Return the messages before the first one of the client."""
        return self._following()

    def on_message(self, message: Message) -> Iterator[Message | Pause | Hangup]:
        """Return the messages that followed the next one of the client, whatever is in it."""
        if self._at < len(self._messages):
            self._last = self._messages[self._at].at
            self._at += 1
        return self._following()

    def _following(self) -> Iterator[Message | Pause | Hangup]:
        begin = self._at
        while self._at < len(self._messages) and not self._messages[self._at].sent:
            self._at += 1
        following = self._messages[begin : self._at]
        last, self._last = self._last, following[-1].at if following else self._last
        return self._timed(following, last)

    def _timed(self, messages: Iterable[RecordedMessage], last: float) -> Iterator[Message | Pause | Hangup]:
        for message in messages:
            if self._paced and message.at > last:
                yield Pause(message.at - last)
            last = message.at
            if message.kind == _CLOSE:
                yield Hangup(message.payload)
            else:
                yield Message(message.payload, message.kind == _BINARY)


def _headers(answer: RecordedAnswer) -> tuple[tuple[str, str], ...]:
    """Return the fields to send again, one of each name."""
    listed = answer.headers
    tokens = {
        token.strip().lower()
        for name, value in listed
        if name.lower() == "connection"
        for token in value.split(",")
    }
    kept: dict[str, tuple[str, str]] = {}
    for name, value in listed:
        lower = name.lower()
        if lower in _OWN or lower in tokens or value == _BLANKED:
            continue
        before = kept.get(lower)
        kept[lower] = (name, value if before is None else f"{before[1]}, {value}")
    return tuple(kept.values())


def _paced(answer: RecordedAnswer) -> Iterator[bytes | Pause]:
    """Yield the pieces of a body, and the pauses before them."""
    if answer.pieces:
        yield Pause(max(0.0, answer.pieces[0].at - answer.at))
        yield answer.pieces[0].data
    for before, piece in pairwise(answer.pieces):
        if piece.at > before.at:
            yield Pause(piece.at - before.at)
        yield piece.data
