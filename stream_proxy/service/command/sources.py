"""Sources of a configuration: a file, or the options of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twisted.application.service import IService

from stream_proxy.errors import ConfigError
from stream_proxy.request_log import RequestLog
from stream_proxy.service.configuration.loading import check_config, load_config
from stream_proxy.service.configuration.types import LogConfig
from stream_proxy.service.main import MainService
from stream_proxy.transport.reactor import IReactor

DEFAULT_PORT = 8080
_DEFAULT_CONFIG = Path("config.json")
#: Keys that options of the command line stand for.
_OPTIONS = {
    "rules[0].listenAddress": "--host",
    "rules[0].listenPort": "--port",
    "rules[0].upstreamUrl": "--upstream",
}


class ConfigFile:
    """A config file.

    :raises ConfigError: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        #: How messages name it.
        self.name = str(path)
        self._path = path
        self.config, self.warnings = load_config(path)

    @property
    def log(self) -> LogConfig:
        """What the log looks like."""
        return self.config.log

    def named(self, key: str) -> str:
        """Return how errors name a key."""
        return f"{self._path}: {key}"

    def service(self, reactor: IReactor, log: RequestLog) -> IService:
        """Return the service of all rules; SIGHUP reads the file again."""
        for warning in self.warnings:
            log.warn(warning)
        return MainService(reactor, self.config, log, self.named, self._path)


class OneUpstream:
    """One upstream that the command line names, on one port.

    :raises ConfigError: one of the options cannot be used.
    """

    name = "--upstream"
    warnings: tuple[str, ...] = ()

    def __init__(self, url: str, port: str | None, host: str | None) -> None:
        rule = {
            "listenPort": port_number(port),
            "listenAddress": host or "127.0.0.1",
            "upstreamUrl": url,
        }
        self.config = check_config({"rules": [rule]}, self.named)

    @property
    def log(self) -> LogConfig:
        """What the log looks like."""
        return self.config.log

    def named(self, key: str) -> str:
        """Return the option that a key of the configuration comes from."""
        return _OPTIONS.get(key, key)

    def service(self, reactor: IReactor, log: RequestLog) -> IService:
        """Return the service."""
        return MainService(reactor, self.config, log, self.named)


def port_number(text: str | None) -> int | str:
    """Return the port of an option: the default, a number, or what is none for the check to refuse."""
    if text is None:
        return DEFAULT_PORT
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


def chosen(options: Mapping[str, str | None], environ: Mapping[str, str]) -> ConfigFile | OneUpstream:
    """Return the source that the options of the command line name, or leave to the environment.

    :raises ConfigError: it cannot be used, or they name several.
    """
    upstream = options["upstream"]
    if upstream is not None:
        if options["config"]:
            raise ConfigError("--upstream takes no config file; leave out --upstream or --config")
        return OneUpstream(upstream, options["port"], options["host"])
    for option in ("port", "host"):
        if options[option] is not None:
            raise ConfigError(f"--{option} goes with --upstream; a config file says where each rule listens")
    path = Path(options["config"] or environ.get("CONFIG_PATH") or _DEFAULT_CONFIG)
    if path == _DEFAULT_CONFIG and not path.exists():
        raise ConfigError(
            f"{path}: the config file does not exist; name one with --config or an upstream with --upstream, "
            "or try --demo"
        )
    return ConfigFile(path)
