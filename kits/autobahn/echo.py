"""Echo server for the Autobahn Testsuite: prints its port and serves until it is stopped."""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor as _reactor

reactor: Any = _reactor


class Echo(WebSocketServerProtocol):
    """An echo of every message; autobahn itself rejects violations of RFC 6455, byte by byte in UTF-8."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Send the message back with the same type."""
        self.sendMessage(payload, isBinary)  # type: ignore[no-untyped-call,unused-ignore]


def main() -> None:
    """Run the server."""
    factory = WebSocketServerFactory(reactor=reactor)
    factory.protocol = Echo
    # Violations are answered with a close code instead of a dropped connection, so that the codes can be
    # compared.
    factory.setProtocolOptions(failByDrop=False, openHandshakeTimeout=0)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
