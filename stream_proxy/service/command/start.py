"""Start of a process under ``twistd``: what it serves, its log, and its errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.application.service import IService
from twisted.python import usage

from stream_proxy.errors import ConfigError
from stream_proxy.request_log import RequestLog
from stream_proxy.service.configuration.types import LogConfig
from stream_proxy.service.log_output import LoggedService, log_output
from stream_proxy.service.memory import settle
from stream_proxy.transport.reactor import IReactor, installed_reactor


class Source(Protocol):
    """What a process is to serve."""

    @property
    def log(self) -> LogConfig:
        """What its log looks like."""

    def service(self, reactor: IReactor, log: RequestLog) -> IService:
        """Return the service.

        :raises ConfigError: it cannot be served, for example because a port is taken.
        """


def start_up(options: usage.Options, choose: Callable[[], Source]) -> IService:
    """Return the service of a process, and under ``twistd`` write its log.

    :param options: those of the plugin, below those of ``twistd``.
    :param choose: returns what is served, or raises :class:`ConfigError`.
    :raises SystemExit: with a line for each mistake of a :class:`ConfigError`.
    """
    reactor = installed_reactor()
    try:
        source = choose()
        log = RequestLog(log_level(LogConfig(), os.environ))
        service = _logged(options.parent, reactor, source.service(reactor, log), log)
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    reactor.callWhenRunning(settle)
    return service


def log_level(config: LogConfig, environ: Mapping[str, str]) -> str:
    """Return the level of the log: the configuration's, else the environment's ``LOG_LEVEL``, else ``info``.

    :raises ConfigError: the variable holds no level.
    """
    level = (config.level or environ.get("LOG_LEVEL") or "info").strip().lower()
    level = {"warning": "warn"}.get(level, level)
    try:
        RequestLog(level)
    except ValueError as error:
        raise ConfigError(f"the environment's LOG_LEVEL {error}") from None
    return level


def _logged(
    options: Mapping[str, Any] | None, reactor: IReactor, service: IService, log: RequestLog
) -> IService:
    try:
        # Only now: a process that does not start leaves no file.
        output = None if options is None else log_output(options, log)
    except OSError as error:
        raise ConfigError(f"{error.filename}: the log cannot be written there: {error.strerror}") from None
    return service if output is None else LoggedService(reactor, service, output, log)
