"""A strict echo server for the Autobahn Testsuite: it prints its port and serves until it is stopped."""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor as _reactor

reactor: Any = _reactor


class Echo(WebSocketServerProtocol):
    """Sends every message back. autobahn refuses what RFC 6455 forbids, bad UTF-8 at its first bad byte."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Send it back as the kind of message that it was."""
        self.sendMessage(payload, isBinary)  # type: ignore[no-untyped-call,unused-ignore]


def main() -> None:
    """Serve."""
    factory = WebSocketServerFactory(reactor=reactor)
    factory.protocol = Echo
    # Violations are answered with a close code, so that there is one to compare.
    factory.setProtocolOptions(failByDrop=False, openHandshakeTimeout=0)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
