"""Log of the proxy: one line for each finished request, and notices."""

from __future__ import annotations

import time
from collections.abc import Mapping

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

LEVELS = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}
# Python's name of a level.
_ALIASES = {"warning": "warn"}
_NAMESPACE = "stream_proxy"

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


def ready(text: str, *, as_json: bool = False) -> dict[str, object]:
    """Return the members of an event by which its text is `text`, whatever that holds.

    :param as_json: `text` is a JSON object, to which time and level can be added.
    """
    return {"log_format": _READY_FORMAT, "line": text, "as_json": as_json}


def ready_text(event: LogEvent) -> str | None:
    """Return the text of an event that has it ready; formatting any other takes ten times as long."""
    if event.get("log_format") != _READY_FORMAT or "log_failure" in event:
        return None
    text = event.get("line")
    return text if isinstance(text, str) else None


class RequestLog:
    """Log of one service, which never holds a header value, a query, a body or a key.

    Identifiers of requests and traces are the exceptions: they come in headers.

    :param level: the lowest of :data:`LEVELS` that is logged, unless :meth:`configure` says another.
    :param observer: receives the events.
    :raises ValueError: the level is unknown.
    """

    def __init__(self, level: str = "info", observer: ILogObserver = globalLogPublisher) -> None:
        self._default = level
        self._predicate = LogLevelFilterPredicate()
        self._observer = observer
        self._log = Logger(namespace=_NAMESPACE, observer=FilteringLogObserver(observer, [self._predicate]))
        #: What the entries of requests have in common.
        self._common: LogEvent = {
            "log_logger": self._log,
            "log_namespace": _NAMESPACE,
            "log_source": None,
            "log_format": _READY_FORMAT,
        }
        self.configure()

    def configure(self, level: str | None = None, *, as_json: bool = False) -> None:
        """Log like that from now on.

        :param level: ``None``: that of the constructor.
        :param as_json: finished requests are JSON.
        :raises ValueError: the level is unknown.
        """
        level = (level or self._default).strip().lower()
        level = _ALIASES.get(level, level)
        least = LEVELS.get(level)
        if least is None:
            raise ValueError(f"must be one of {', '.join(LEVELS)}")
        self.level = level
        #: The lowest level that is logged.
        self.least = least
        self.as_json = as_json
        #: Finished requests are logged at this level, and the steps of each.
        self.tells_requests = least <= LogLevel.info
        self.tells_steps = least <= LogLevel.debug
        self._predicate.setLogLevelForNamespace(_NAMESPACE, least)

    def entry(self, line: str, members: Mapping[str, object], *, debug: bool = False) -> None:
        """Log an entry about a request, whose text or JSON is ready; the level has been looked at.

        :param members: further members of the event.
        """
        # Logger.emit takes three times as long, and formats of several fields are formatted slowly.
        as_json = self.as_json
        self._observer(
            {
                **self._common,
                **members,
                "log_level": LogLevel.debug if debug else LogLevel.info,
                "log_time": time.time(),
                "line": line if as_json else printable(line),
                "as_json": as_json,
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
