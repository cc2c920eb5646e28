"""Forks of templates: processes that run a Python script without importing its libraries again.

Importing takes most of the time of a process that starts. A fork differs from a process of its own only in
what the interpreter reads when it starts (``PYTHON…``) and in what modules read when they are imported. A
worker of the product is a fork of its parent, and also differs in what is left of that.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.process import ProcessReader
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.support import template
from tests.support.loopback import reactor

#: What a template imports for the scripts it runs.
TWISTD_MODULES = (
    "twisted.scripts.twistd",
    "twisted.internet.epollreactor",
    "stream_proxy.service.command.run",
    "stream_proxy.service.command.demo",
    "stream_proxy.service.adapter_tap",
    "stream_proxy.mock.tap",
)
OPENAI_MODULES = ("openai.resources.chat.completions", "openai.resources.responses.responses")


@cache
def _template(*modules: str) -> socket.socket:
    """Return the socket of a template, which is started at the first use and ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-u", template.__file__, str(theirs.fileno()), *modules]
        subprocess.Popen(command, pass_fds=[theirs.fileno()])
    return ours


class Fork:
    """A fork of a template, with the part of ``IProcessTransport`` that the tests use.

    :param protocol: is told the output and the end.
    :param command: a Python script, and its arguments.
    :param modules: what the template imports.
    :param workers: its workers are forks as well.
    """

    def __init__(
        self,
        protocol: ProcessProtocol,
        command: Sequence[str],
        environment: Mapping[str, str],
        path: str,
        modules: Sequence[str],
        workers: bool,
    ) -> None:
        self._protocol = protocol
        self._status = b""
        pipes = [os.pipe() for _ in range(3)]
        request = {"command": command, "environment": dict(environment), "path": path, "workers": workers}
        socket.send_fds(_template(*modules), [json.dumps(request).encode()], [write for _, write in pipes])
        for _, write in pipes:
            os.close(write)
        status = pipes[0][0]
        while not self._status.endswith(b"\n"):
            if not (data := os.read(status, 1)):
                raise RuntimeError("the template of processes has ended")
            self._status += data
        self.pid = int(self._status)
        self._status = b""
        self._open = {number: ProcessReader(reactor, self, number, pipes[number][0]) for number in range(3)}
        protocol.makeConnection(self)

    def childDataReceived(self, name: int, data: bytes) -> None:
        """Pass on output; what comes on the first pipe is the exit status."""
        if name == 0:
            self._status += data
        else:
            self._protocol.childDataReceived(name, data)

    def childConnectionLost(self, name: int, reason: Failure) -> None:
        """Tell the end once it has ended and its output is complete."""
        os.close(self._open.pop(name).fileno())
        if self._open:
            return
        status = int(self._status)
        signalled = -status if status < 0 else None
        ended = ProcessTerminated(max(status, 0), signalled) if status else ProcessDone(0)
        self._protocol.processEnded(Failure(ended))

    def signalProcess(self, name: str) -> None:
        """Send ``SIG`` + `name`.

        :raises ProcessExitedAlready: it has ended.
        """
        if self._status:
            raise ProcessExitedAlready
        try:
            os.kill(self.pid, getattr(signal, f"SIG{name}"))
        except ProcessLookupError:
            raise ProcessExitedAlready from None
