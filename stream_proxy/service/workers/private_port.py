"""Port of one process for others of its service: a UNIX socket that nobody else can reach."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorUNIX

from stream_proxy.downstream.site import ProxySite
from stream_proxy.transport.reactor import IReactor


class PrivatePort:
    """Socket that is listened to from now on, in place of one that a killed process has left.

    :param path: where, in a directory that nobody else can enter.
    :param site: what is served.
    """

    def __init__(self, reactor: IReactor, path: str, site: ProxySite) -> None:
        self._site = site
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        unix: Any = IReactorUNIX(reactor)
        self._port: IListeningPort = unix.listenUNIX(path, site, mode=0o600)

    async def close(self, grace: float) -> None:
        """Stop listening, and give what is under way so many seconds."""
        await maybeDeferred(self._port.stopListening)
        await self._site.drain(grace)
