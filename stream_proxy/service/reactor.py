"""``twistd --reactor uvloop``: Twisted's asyncio reactor on uvloop's event loop."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.main import installReactor
from twisted.internet.process import reapAllProcesses


class UvloopReactor(AsyncioSelectorReactor):
    """The asyncio reactor on a loop of uvloop's, made by :func:`install`."""


def install() -> None:
    """Make a :class:`UvloopReactor` this process's reactor.

    :raises SystemExit: with one sentence, if uvloop is not installed.
    """
    try:
        import uvloop
    except ImportError as error:
        # For any other exception twistd prints its whole usage first.
        raise SystemExit(
            f"The uvloop reactor needs uvloop ({error}): pip install 'openai-stream-proxy[uvloop]'"
        ) from None
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    reactor = UvloopReactor(loop)
    reactor.callWhenRunning(_watch_children, reactor)
    installReactor(reactor)


def _watch_children(reactor: UvloopReactor) -> None:
    """Reap child processes when they end.

    Twisted learns of SIGCHLD from the wake-up descriptor of signals (``signal.set_wakeup_fd``). A process has
    only one, and uvloop uses it for itself.
    """

    def reap(number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(reapAllProcesses)

    signal.signal(signal.SIGCHLD, reap)
    signal.siginterrupt(signal.SIGCHLD, False)
