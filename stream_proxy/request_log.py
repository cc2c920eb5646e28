"""Log of the proxy: one line for each finished request, and notices."""

from __future__ import annotations

import time

import msgspec
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogPublisher,
)
from twisted.python.failure import Failure

from stream_proxy.errors import APIError
from stream_proxy.printable import printable

LEVELS = {"debug": LogLevel.debug, "info": LogLevel.info, "warn": LogLevel.warn, "error": LogLevel.error}

#: Format of entries whose text is ready, as that of each finished request is.
_READY_FORMAT = "{line}"


class Outcome(msgspec.Struct, frozen=True):
    """End of one request.

    :param status: of the response.
    :param sent: the bytes of its body that went out.
    :param problem: the reason why it failed, if it did.
    :param code: the code of the error, if it has one.
    :param detail: anything else that the log should show.
    """

    status: int
    sent: int
    problem: str | None = None
    detail: str | None = None
    code: str | None = None

    @classmethod
    def gone(cls, sent: int) -> Outcome:
        """Return the outcome of a request whose client left; 499 is the status that nginx logs for that."""
        return cls(499, sent, "the client went away")

    @classmethod
    def failed(cls, error: APIError, sent: int) -> Outcome:
        """Return the outcome of a request that was answered with an error."""
        return cls(error.status, sent, error.for_log, code=str(error.code))


def ready(text: str) -> dict[str, str]:
    """Return the members of an event by which its text is `text`, whatever that holds."""
    return {"log_format": _READY_FORMAT, "line": text}


def ready_text(event: LogEvent) -> str | None:
    """Return the text of an event that has it ready; formatting any other takes ten times as long."""
    if event.get("log_format") != _READY_FORMAT or "log_failure" in event:
        return None
    text = event.get("line")
    return text if isinstance(text, str) else None


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
        #: Finished requests are logged at this level.
        self.tells_requests = least <= LogLevel.info
        predicate = LogLevelFilterPredicate(least)
        self._observer = observer
        self._log = Logger(namespace="stream_proxy", observer=FilteringLogObserver(observer, [predicate]))

    def request(
        self, method: bytes, path: bytes, origin: str, how: str, seconds: float, outcome: Outcome
    ) -> None:
        """Log a finished request in one line; `path` has no query."""
        if not self.tells_requests:
            return
        verb, name = method.decode("ascii", "backslashreplace"), path.decode("ascii", "backslashreplace")
        status, sent, milliseconds = outcome.status, outcome.sent, round(seconds * 1000)
        detail = f", {outcome.detail}" if outcome.detail else ""
        problem = f": {outcome.problem}" if outcome.problem else ""
        line = f"{verb} {name} {status} {how} {origin} {sent} bytes {milliseconds} ms{detail}{problem}"
        # Logger.emit takes three times as long, and formats of several fields are formatted slowly.
        self._observer(
            {
                "log_logger": self._log,
                "log_level": LogLevel.info,
                "log_namespace": self._log.namespace,
                "log_source": None,
                "log_time": time.time(),
                **ready(printable(line)),
                "method": verb,
                "path": name,
                "status": status,
                "how": how,
                "origin": origin,
                "sent": sent,
                "milliseconds": milliseconds,
                "detail": detail,
                "problem": problem,
            }
        )

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
