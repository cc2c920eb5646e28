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
import traceback
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

_MAX_REQUEST = 1024 * 1024
#: The module that a worker runs, and the reactors on which it is forked.
_WORKER, _REACTORS = "stream_proxy.service.workers.child", ("twisted.internet.epollreactor",)


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


def fork_workers() -> None:
    """Fork the workers of this process, too, where Twisted would execute an interpreter for each."""
    from twisted.internet import process

    twisteds: Any = process.Process
    spawn, execute = twisteds._trySpawnInsteadOfFork, twisteds._execChild

    def is_worker(arguments: Sequence[str]) -> bool:
        return arguments[2:4] == ["-m", _WORKER] and arguments[4] in _REACTORS

    def try_spawn(self: Any, path: Any, uid: Any, gid: Any, program: str, arguments: Any, *rest: Any) -> bool:
        return not is_worker(arguments) and spawn(self, path, uid, gid, program, arguments, *rest)

    def exec_child(self: Any, path: Any, uid: Any, gid: Any, program: str, arguments: Any, env: Any) -> None:
        if is_worker(arguments):
            run_worker(arguments, env)
        execute(self, path, uid, gid, program, arguments, env)

    twisteds._trySpawnInsteadOfFork, twisteds._execChild = try_spawn, exec_child


def run_worker(arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Run a worker in a fork of its parent, which first forgets what Twisted keeps for a process."""
    gc.freeze()  # the parent's objects own descriptors with numbers that are the worker's now
    import twisted.internet
    from twisted.internet import process
    from twisted.logger import globalLogBeginner, globalLogPublisher

    process.reapProcessHandlers.clear()
    del sys.modules["twisted.internet.reactor"], twisted.internet.reactor
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    for observer in list(globalLogPublisher._observers):
        globalLogPublisher.removeObserver(observer)
    globalLogBeginner.__init__(globalLogPublisher, sys.stderr, sys, warnings)  # type: ignore[misc]
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(arguments[3:])
    status: Any = 0
    try:
        runpy.run_module(_WORKER, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    os._exit(status or 0)


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
    if request["workers"]:
        fork_workers()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
