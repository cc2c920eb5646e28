"""Template of processes: a process that has imported what others need, and forks to run Python scripts.

Started by :mod:`tests.support.forks` with the number of a socket, and the modules to import. A message on the
socket is a request, with three descriptors: for its status, standard output and standard error.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import sysconfig
from typing import Any

_MAX_REQUEST = 1024 * 1024


def wait_for_fork(control: socket.socket) -> dict[str, Any]:
    """Fork for each request, and return it in the fork; the template itself ends with the socket."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _MAX_REQUEST, 3)
        if not message:
            sys.exit()
        if os.fork() == 0:
            control.close()
            fork(*descriptors)
            return dict(json.loads(message))
        for descriptor in descriptors:
            os.close(descriptor)


def fork(status: int, out: int, err: int) -> None:
    """Fork once more, return in the fork, and write its process id and exit status as lines to `status`."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid != 0:
        os.close(out)
        os.close(err)
        os.write(status, b"%d\n" % pid)
        _, ended = os.waitpid(pid, 0)
        os.write(status, b"%d\n" % os.waitstatus_to_exitcode(ended))
        os._exit(0)
    os.close(status)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, out, err)):
        os.dup2(descriptor, number)
        os.close(descriptor)


def main(descriptor: str, *modules: str) -> None:
    """Import `modules`, and run a script in each fork as the interpreter runs it."""
    sys.path[0] = sysconfig.get_path("scripts")
    for module in modules:
        importlib.import_module(module)
    # Forks share the memory of what they do not write to, such as the collector's marks.
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    request = wait_for_fork(socket.socket(fileno=int(descriptor)))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["path"])
    sys.argv = request["command"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
