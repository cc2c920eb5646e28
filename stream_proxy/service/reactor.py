"""``twistd --reactor uvloop``: Twisted's asyncio reactor on uvloop's event loop."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.main import installReactor
from twisted.internet.process import reapAllProcesses


class UvloopReactor(AsyncioSelectorReactor):
    """That reactor on such a loop. `install` makes one."""


def install() -> None:
    """Make it this process's reactor.

    :raises SystemExit: with one sentence, if uvloop is not installed.
    """
    try:
        import uvloop
    except ImportError as error:
        # twistd would print its whole usage in front of the sentence of any other exception.
        raise SystemExit(
            f"The uvloop reactor needs uvloop ({error}): pip install 'openai-stream-proxy[uvloop]'"
        ) from None
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    reactor = UvloopReactor(loop)
    reactor.callWhenRunning(_watch_children, reactor)
    installReactor(reactor)


def _watch_children(reactor: UvloopReactor) -> None:
    """Notice children that end.

    Twisted waits for SIGCHLD at the wake-up descriptor of signals, of which a process has one, and uvloop has
    taken it for its own.
    """

    def reap(number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(reapAllProcesses)

    signal.signal(signal.SIGCHLD, reap)
    signal.siginterrupt(signal.SIGCHLD, False)
