"""``twistd openai-stream-proxy``: options in, service out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.python import usage

from stream_proxy.errors import ConfigError
from stream_proxy.request_log import RequestLog
from stream_proxy.service.configuration.loading import load_config
from stream_proxy.service.configuration.types import Config, Rule
from stream_proxy.service.log_output import LoggedService, log_output
from stream_proxy.service.main import MainService
from stream_proxy.service.memory import settle
from stream_proxy.transport.reactor import IReactor, installed_reactor

_DEMO_PORT = 8080
_DEFAULT_CONFIG = Path("config.json")


class Options(usage.Options):
    """Command line of ``twistd openai-stream-proxy``."""

    optFlags = [
        ["demo", None, "Serve an embedded demo upstream on port 8080: no config, no key, no network."]
    ]
    optParameters = [["config", "c", None, "The config file [default: $CONFIG_PATH, else config.json]."]]
    longdesc = (
        "Answers ordinary OpenAI-compatible calls from an upstream event stream and passes everything else "
        "through. The environment's LOG_LEVEL is debug, info (default), warn or error."
    )

    def opt_config_file(self, path: str) -> None:
        """Same as --config."""
        self["config"] = path


def makeService(options: Options) -> IService:
    """Return the service for `options`.

    :raises SystemExit: with one line, if the configuration cannot be used or a port cannot be listened on.
    """
    return start_up(options, lambda reactor, log: _make_service(options, reactor, log))


def start_up(options: usage.Options, make: Callable[[IReactor, RequestLog], IService]) -> IService:
    """Return the service that `make` makes of a reactor and a log, and under ``twistd`` write the log.

    :param options: those of the plugin, below those of ``twistd``.
    :raises SystemExit: with one line, for a :class:`ConfigError`.
    """
    reactor = installed_reactor()
    try:
        try:
            log = RequestLog(os.environ.get("LOG_LEVEL") or "info")
        except ValueError as error:
            raise ConfigError(f"the environment's LOG_LEVEL {error}") from None
        service = _logged(options.parent, reactor, make(reactor, log), log)
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    reactor.callWhenRunning(settle)
    return service


def _logged(
    options: Mapping[str, Any] | None, reactor: IReactor, service: IService, log: RequestLog
) -> IService:
    try:
        # Only now: a process that does not start leaves no file.
        output = None if options is None else log_output(options, log.level)
    except OSError as error:
        raise ConfigError(f"{error.filename}: the log cannot be written there: {error.strerror}") from None
    return service if output is None else LoggedService(reactor, service, output, log)


def configured(path: Path, reactor: IReactor, log: RequestLog) -> IService:
    """Return the service of a config file.

    :raises ConfigError: the file cannot be used, or a listener cannot be opened.
    """
    config, warnings = load_config(path)
    for warning in warnings:
        log.warn(warning)
    return MainService(reactor, config, log, lambda key: f"{path}: {key}", path)


def _make_service(options: Options, reactor: IReactor, log: RequestLog) -> IService:
    if options["demo"]:
        if options["config"]:
            raise ConfigError("--demo takes no config file; leave out --demo or --config")
        return _demo(reactor, log)
    path = Path(options["config"] or os.environ.get("CONFIG_PATH") or _DEFAULT_CONFIG)
    if path == _DEFAULT_CONFIG and not path.exists():
        raise ConfigError(f"{path}: the config file does not exist; name one with --config, or try --demo")
    return configured(path, reactor, log)


class _Listening(Service):
    """A port that listens already, closed with its parent service."""

    def __init__(self, port: IListeningPort) -> None:
        self._port = port

    def stopService(self) -> Deferred[None] | None:
        return self._port.stopListening()


def _demo(reactor: IReactor, log: RequestLog) -> IService:
    from stream_proxy.mock import mock_site

    # The rule needs the number of the ephemeral port, so the mock has to listen before the proxy exists.
    site = mock_site(reactor)
    site.noisy = False
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    address = port.getHost()
    assert isinstance(address, IPv4Address)
    rule = Rule(listen_port=_DEMO_PORT, upstream_url=f"http://127.0.0.1:{address.port}")
    reactor.callWhenRunning(log.info, f"the demo's base URL is http://127.0.0.1:{_DEMO_PORT}/v1")
    upstream: IService = _Listening(port)
    try:
        service = MainService(reactor, Config(rules=[rule]), log, lambda key: "--demo")
    except ConfigError:
        upstream.stopService()
        raise
    upstream.setServiceParent(service)
    return service
