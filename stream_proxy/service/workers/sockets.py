"""Directory of the UNIX sockets by which this process and its workers reach each other."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from stream_proxy.request_log import RequestLog

_PREFIX = "openai-stream-proxy-"
#: The longest path of a UNIX socket has some 100 bytes, of which the rest is ours.
_LONGEST_PLACE = 60


class SocketDirectory:
    """A directory that no other user can enter, made when it is needed.

    :param log: says why there is none.
    """

    def __init__(self, log: RequestLog) -> None:
        self._log = log
        self._path: Path | None = None

    def make(self) -> None:
        """Make it, unless there is one; without one workers show no requests and share no answers."""
        if self._path is not None:
            return
        usual = tempfile.gettempdir()
        place = usual if len(os.fsencode(usual)) <= _LONGEST_PLACE else "/tmp"
        try:
            self._path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))  # of mode 0700
        except OSError as error:
            self._log.warn(
                "the admin port shows no requests, and workers share no answers: there is no place for "
                f"sockets: {error}"
            )

    def socket(self, number: int) -> str | None:
        """Return the path of a worker's socket; ``None`` without a directory."""
        return None if self._path is None else str(self._path / f"{number}.socket")

    def offer(self, number: int) -> str | None:
        """Return the path of the socket on which a worker gives away what it keeps."""
        return None if self._path is None else str(self._path / f"{number}.offer")

    def remove(self) -> None:
        """Remove it with all that is in it."""
        path, self._path = self._path, None
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)
