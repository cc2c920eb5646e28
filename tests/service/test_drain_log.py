"""Progress of a drain in the log."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.ledger import Ledger
from stream_proxy.request_log import RequestLog
from stream_proxy.service.drain_log import DrainLog
from tests.support.loopback import Lines


class DrainLogTests(SynchronousTestCase):
    """:class:`DrainLog`."""

    def test_progress(self) -> None:
        """The begin is logged, then each five seconds what is still open, and nothing after the end."""
        clock, lines = Clock(), Lines()
        ledger = Ledger(clock.seconds)
        record, session = ledger.begin("main"), ledger.begin("main")
        session.mode = "websocket"
        clock.advance(2)
        process = f"process {os.getpid()} stops; open:"
        with DrainLog(clock, RequestLog(observer=lines), ledger.live):
            self.assertEqual(lines.lines, [f"{process} 1 request, 1 WebSocket"])
            clock.advance(5)
            ledger.end(session)
            clock.advance(5)
            ledger.end(record)
            clock.advance(5)
        self.assertEqual(
            lines.lines[1:],
            [
                f"{process} 1 request, 1 WebSocket, the oldest for 7 s",
                f"{process} 1 request, the oldest for 12 s",
            ],
        )
        self.assertEqual(clock.getDelayedCalls(), [])
