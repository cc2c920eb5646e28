"""How requests end, and the line that the log has for each."""

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
    """How one request ended: the status, the bytes of the body that went out, and why it failed if it did.

    ``detail``: what else is worth telling.
    """

    status: int
    sent: int
    problem: str | None = None
    detail: str | None = None

    @classmethod
    def gone(cls, sent: int) -> Outcome:
        """The client left before the end; 499 is what nginx calls that."""
        return cls(499, sent, "the client went away")

    @classmethod
    def failed(cls, error: APIError, sent: int) -> Outcome:
        """Answered with an error."""
        return cls(error.status, sent, error.for_log)


class RequestLog:
    """The log of one service. It never holds a header value, a query, a body or a key.

    :param level: the least important of :data:`LEVELS` that is let through.
    :param observer: where events go.
    :raises ValueError: for an unknown level.
    """

    def __init__(self, level: str = "info", observer: ILogObserver = globalLogPublisher) -> None:
        self.level = level
        least = LEVELS.get(level.strip().lower())
        if least is None:
            raise ValueError(f"must be one of {', '.join(LEVELS)}")
        self._tells_requests = least <= LogLevel.info
        predicate = LogLevelFilterPredicate(least)
        self._log = Logger(namespace="stream_proxy", observer=FilteringLogObserver(observer, [predicate]))

    def request(
        self, method: bytes, path: bytes, origin: str, how: str, seconds: float, outcome: Outcome
    ) -> None:
        """One line for a finished request; `path` is without its query."""
        if not self._tells_requests:
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
        # Formatting costs much for each field of a format, so there is one; observers find the others.
        self._log.info("{line}", line=_LINE % fields, **fields)

    def info(self, message: str) -> None:
        """Something worth knowing."""
        self._log.info("{message}", message=message)

    def warn(self, message: str) -> None:
        """Something that is probably not as it was meant."""
        self._log.warn("{message}", message=message)

    def error(self, message: str) -> None:
        """Something that was asked for and cannot be done."""
        self._log.error("{message}", message=message)

    def bug(self, failure: Failure) -> None:
        """A failure that should not have been possible."""
        self._log.failure("something failed in the proxy", failure=failure)
