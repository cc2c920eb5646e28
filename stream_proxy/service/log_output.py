"""Output of the log: every entry of the process, Twisted's own included, in a file or on a stream."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from twisted.application.service import IService, MultiService
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    eventAsText,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.components import Componentized
from zope.interface import implementer

from stream_proxy.lenient_json import encode_json
from stream_proxy.observe.log_entries import printable_json
from stream_proxy.printable import printable
from stream_proxy.request_log import RequestLog, ready_text
from stream_proxy.transport.reactor import IReactor

#: Whose entries quote what peers sent; what they are about is in the log already, in words of ours.
_QUOTING = re.compile(r"(autobahn|txaio)\b")
#: Traces of a bug have lines, which Twisted indents.
_LINES = "\n\t"


class Stream(Protocol):
    """Destination of the log."""

    def write(self, text: str) -> object:
        """Write a whole entry."""

    def flush(self) -> object:
        """Let nothing of it wait."""


class LogFile:
    """File that the log is appended to, until it is moved away and opened anew.

    :param path: its path; the file is created if there is none.
    :raises OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def write(self, text: str) -> None:
        """Append `text`."""
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(self._descriptor, data) :]

    def flush(self) -> None:
        """Do nothing: no part of an entry is kept."""

    def reopen(self) -> None:
        """Open the file of that path, a new one with the mode of the old; on failure the old one stays.

        :raises OSError: it cannot be opened.
        """
        mode = stat.S_IMODE(os.fstat(self._descriptor).st_mode)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:  # logrotate's «create» has made it, with a mode of its own
            descriptor = os.open(self.path, flags)
        else:
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, mode)  # whatever the umask is
        old, self._descriptor = self._descriptor, descriptor
        os.close(old)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


@implementer(ILogObserver)
class LogOutput:
    """Observer that writes entries as text or as JSON, with what is not printable escaped.

    :param stream: where to.
    :param log: the log whose level and format hold for the entries of everything in the process.
    """

    def __init__(self, stream: Stream, log: RequestLog) -> None:
        self.stream = stream
        self._log = log
        self._second = -1
        self._second_text = ""
        self._as_json = False

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if level < self._log.least or _QUOTING.match(event.get("log_namespace") or ""):
            return
        as_json = self._log.as_json
        if as_json is not self._as_json:
            self._as_json, self._second = as_json, -1
        # With the end of the line, nothing would count as printable.
        text = self._json(event) if as_json else printable(self._text(event), _LINES)
        if text:
            self.stream.write(text + "\n")
            self.stream.flush()

    def _json(self, event: LogEvent) -> str:
        """Return the entry of an event as a JSON object in one line, empty for an event without a text."""
        level, when = event.get("log_level", LogLevel.info), event.get("log_time") or time.time()
        head = f'{{"time":"{self._stamp(when)}.{int(when % 1 * 1000):03}Z","level":"{level.name}",'
        line = ready_text(event)
        if line and event.get("as_json"):
            return head + line[1:]
        text = line or eventAsText(event, includeTimestamp=False, includeSystem=False)
        source = event.get("log_namespace") or "-"
        members = encode_json({"event": "notice", "source": source, "message": text}).decode()
        return head + printable_json(members[1:]) if text else ""

    def _text(self, event: LogEvent) -> str:
        """Return the entry of an event, without the end of its line, as Twisted formats it."""
        line = ready_text(event)
        if not line:
            return (formatEventAsClassicLogText(event, self._stamp) or "").removesuffix("\n")
        system = event.get("log_system")
        if system is None:
            system = f"{event['log_namespace']}#{event['log_level'].name}"
        line = line.replace("\n", "\n\t")
        return f"{self._stamp(event['log_time'])} [{system}] {line}"

    def _stamp(self, seconds: float | None) -> str:
        """Return the time of an entry as Twisted writes it, formatted once for each second."""
        if seconds is None:
            return formatTime(None)
        second = int(seconds)
        if second != self._second:
            self._second = second
            if self._as_json:
                self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            else:
                self._second_text = formatTime(second)
        return self._second_text


def log_output(options: Mapping[str, Any], log: RequestLog) -> LogOutput | None:
    """Return the output of a log that the options of ``twistd`` ask for; ``None`` if they name another kind.

    Twisted's own would begin a new file after each megabyte, and at SIGUSR1 rename the one of the old name.

    :raises OSError: the file cannot be opened.
    """
    if options.get("logger") or options.get("syslog"):
        return None
    foreground = options.get("nodaemon")
    name = options.get("logfile") or ("-" if foreground else "twistd.log")
    if name != "-":
        return LogOutput(LogFile(name), log)
    # A daemon has no such stream, and twistd has words for that.
    return LogOutput(sys.stdout, log) if foreground else None


class LoggedService(MultiService):
    """Service of a whole process, whose log is written to an output of ours; SIGUSR1 opens its file anew.

    :param service: all that the process does.
    :param log: reports a file that cannot be opened.
    """

    def __init__(self, reactor: IReactor, service: IService, output: LogOutput, log: RequestLog) -> None:
        super().__init__()
        self._reactor = reactor
        self._output = output
        self._log = log
        service.setServiceParent(self)

    def setServiceParent(self, parent: object) -> None:
        """Become the service of an application, which ``twistd`` asks for its observer afterwards."""
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._output)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Handle the signal, which would end the process, and start everything."""
        signal.signal(signal.SIGUSR1, lambda number, frame: self._reactor.callFromThread(self.reopen))
        super().startService()

    def reopen(self) -> None:
        """Open the log's file anew, if there is one."""
        stream = self._output.stream
        if isinstance(stream, LogFile):
            try:
                stream.reopen()
            except OSError as error:
                self._log.error(
                    f"{stream.path} cannot be opened: {error.strerror}; the log goes on in the old file"
                )
