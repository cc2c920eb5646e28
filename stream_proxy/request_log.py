"""Log of the proxy: one line for each finished request, and notices."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogPublisher,
)
from twisted.python.failure import Failure

from stream_proxy.errors import APIError

LEVELS = {"debug": LogLevel.debug, "info": LogLevel.info, "warn": LogLevel.warn, "error": LogLevel.error}


_LINE = (
    "%(method)s %(path)s %(status)s %(how)s %(origin)s %(sent)s bytes %(milliseconds)s ms"
    "%(detail)s%(problem)s"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """End of one request.

    :param status: of the response.
    :param sent: the bytes of its body that went out.
    :param problem: the reason why it failed, if it did.
    :param detail: anything else that the log should show.
    """

    status: int
    sent: int
    problem: str | None = None
    detail: str | None = None

    @classmethod
    def gone(cls, sent: int) -> Outcome:
        """Return the outcome of a request whose client left; 499 is the status that nginx logs for that."""
        return cls(499, sent, "the client went away")

    @classmethod
    def failed(cls, error: APIError, sent: int) -> Outcome:
        """Return the outcome of a request that was answered with an error."""
        return cls(error.status, sent, error.for_log)


def printable(text: str, kept: str = "") -> str:
    """Return `text` with all characters escaped that are neither printable nor in `kept`.

    What comes from outside could forge entries, or command the terminal that shows them.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in kept else ascii(each)[1:-1] for each in text)


class RequestLog:
    """Log of one service, which never holds a header value, a query, a body or a key.

    :param level: the lowest of :data:`LEVELS` that is logged.
    :param observer: receives the events.
    :raises ValueError: the level is unknown.
    """

    def __init__(self, level: str = "info", observer: ILogObserver = globalLogPublisher) -> None:
        self.level = level
        least = LEVELS.get(level.strip().lower())
        if least is None:
            raise ValueError(f"must be one of {', '.join(LEVELS)}")
        self._logs_requests = least <= LogLevel.info
        predicate = LogLevelFilterPredicate(least)
        self._log = Logger(namespace="stream_proxy", observer=FilteringLogObserver(observer, [predicate]))

    def request(
        self, method: bytes, path: bytes, origin: str, how: str, seconds: float, outcome: Outcome
    ) -> None:
        """Log a finished request in one line; `path` has no query."""
        if not self._logs_requests:
            return
        fields = {
            "method": method.decode("ascii", "backslashreplace"),
            "path": path.decode("ascii", "backslashreplace"),
            "status": outcome.status,
            "how": how,
            "origin": origin,
            "sent": outcome.sent,
            "milliseconds": round(seconds * 1000),
            "detail": f", {outcome.detail}" if outcome.detail else "",
            "problem": f": {outcome.problem}" if outcome.problem else "",
        }
        # twisted.logger formats each field slowly, so the format has only one; observers get all the same.
        self._log.info("{line}", line=printable(_LINE % fields), **fields)

    def info(self, message: str) -> None:
        """Log a notice."""
        self._log.info("{message}", message=printable(message))

    def warn(self, message: str) -> None:
        """Log something that is probably a mistake."""
        self._log.warn("{message}", message=printable(message))

    def error(self, message: str) -> None:
        """Log something that was asked for and cannot be done."""
        self._log.error("{message}", message=printable(message))

    def bug(self, failure: Failure) -> None:
        """Log a failure that should be impossible, with its traceback."""
        self._log.failure("something failed in the proxy", failure=failure)
