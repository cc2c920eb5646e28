"""Messages to systemd: the process is ready, reloads, stops, and its reactor still turns (``sd_notify``)."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IReactorTime

from stream_proxy.transport.timers import Timeout

#: How often it is looked whether the process has become ready.
_LOOK_SECONDS = 0.1


class ServiceManager:
    """The systemd that has started this process, if it wants to be told anything.

    :param environ: what it has put into the environment: ``NOTIFY_SOCKET`` (with ``Type=notify``),
        ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` (with ``WatchdogSec=``).
    """

    def __init__(self, clock: IReactorTime, environ: Mapping[str, str]) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        #: An address that begins with ``@`` is abstract: no file belongs to it.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._watchdog = _watchdog_seconds(environ)
        self._look = Timeout(clock)
        self._feed = Timeout(clock)

    def starting(self, is_ready: Callable[[], bool]) -> None:
        """Say that the process is ready as soon as it is; from now on feed the watchdog."""
        if self._address:
            self._await(is_ready)
            if self._watchdog:
                self._feed_watchdog()

    def _await(self, is_ready: Callable[[], bool]) -> None:
        if is_ready():
            self.ready()
        else:
            self._look.start(_LOOK_SECONDS, lambda: self._await(is_ready))

    def ready(self) -> None:
        """Say that the process is ready, or is so again."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """Say that the configuration is read again; :meth:`ready` has to follow."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the process stops; it need no longer become ready."""
        self._look.stop()
        self._tell("STOPPING=1")

    def close(self) -> None:
        """Say nothing more: the process ends."""
        self._look.stop()
        self._feed.stop()

    def _feed_watchdog(self) -> None:
        self._tell("WATCHDOG=1")
        self._feed.start(self._watchdog / 2, self._feed_watchdog)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        # A manager that is gone, or does not read, is no reason to fail or to wait.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), self._address)


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """Return how long the watchdog waits for a message of this process; 0: it waits for none."""
    microseconds, process = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    ours = not process or process == str(os.getpid())
    return int(microseconds) / 1e6 if ours and microseconds.isdecimal() and microseconds.isascii() else 0.0
