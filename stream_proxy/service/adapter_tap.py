"""``twistd openai-stream-adapter``: options in, service out."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.application.service import IService
from twisted.python import usage

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.request_log import RequestLog
from stream_proxy.service.command.sources import ConfigFile
from stream_proxy.service.command.start import start_up
from stream_proxy.service.configuration.types import Config, LogConfig, Rule
from stream_proxy.service.main import MainService
from stream_proxy.transport.reactor import IReactor

_PORT = 28081
_SERVICE = "http://127.0.0.1:28080/stream"


class Options(usage.Options):
    """Command line of ``twistd openai-stream-adapter``."""

    optParameters = [
        ["config", "c", None, "The config file [default: $CONFIG_PATH, else the defaults below]."]
    ]
    longdesc = (
        "Makes a service that streams look like an OpenAI model. Without a config: the service "
        f"{_SERVICE} as the model {AdapterConfig().models[0]} on port {_PORT}. The environment's LOG_LEVEL "
        "is debug, info (default), warn or error."
    )

    def opt_config_file(self, path: str) -> None:
        """Same as --config."""
        self["config"] = path


def makeService(options: Options) -> IService:
    """Return the service for `options`.

    :raises SystemExit: with a line for each mistake, if the configuration cannot be used or a port cannot be
        listened on.
    """
    path = options["config"] or os.environ.get("CONFIG_PATH")
    return start_up(options, lambda: ConfigFile(Path(path)) if path else Defaults())


class Defaults:
    """The adapter for a service on this machine."""

    log = LogConfig()

    def service(self, reactor: IReactor, log: RequestLog) -> IService:
        """Return the service, which says where it is."""
        rule = Rule(listen_port=_PORT, upstream_url=_SERVICE, adapter=AdapterConfig())
        reactor.callWhenRunning(log.info, f"the adapter's base URL is http://127.0.0.1:{_PORT}/v1")
        config = Config(rules=[rule])
        return MainService(reactor, config, log, lambda key: "openai-stream-adapter without a config")
