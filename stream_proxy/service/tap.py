"""``twistd openai-stream-proxy``: options in, service out."""

from __future__ import annotations

import os

from twisted.application.service import IService
from twisted.python import usage

import stream_proxy
from stream_proxy.errors import ConfigError
from stream_proxy.service.command.sources import DEFAULT_PORT, chosen
from stream_proxy.service.command.start import Source, start_up


class Options(usage.Options):
    """Command line of ``twistd openai-stream-proxy``."""

    optFlags = [["demo", None, "Serve an embedded demo upstream: no config, no key, no network."]]
    optParameters = [
        ["config", "c", None, "The config file [default: $CONFIG_PATH, else config.json]."],
        ["upstream", "u", None, "Serve this one upstream, http:// or https://, without a config file."],
        ["port", "p", None, f"The port for --upstream or --demo [default: {DEFAULT_PORT}]."],
        ["host", None, None, "The address for --upstream [default: 127.0.0.1]; :: for all."],
    ]
    longdesc = (
        "Answers ordinary OpenAI-compatible calls from an upstream event stream and passes everything else "
        "through. The environment's LOG_LEVEL is debug, info (default), warn or error."
    )

    def opt_config_file(self, path: str) -> None:
        """Same as --config."""
        self["config"] = path

    def parseArgs(self, *arguments: str) -> None:
        """Refuse what is no option.

        :raises usage.UsageError: there is anything.
        """
        if arguments:
            raise usage.UsageError(f"there is no {arguments[0]}")

    def opt_version(self) -> None:
        """Show the version and exit."""
        print(f"openai-stream-proxy {stream_proxy.__version__}")
        raise SystemExit(0)


def makeService(options: Options) -> IService:
    """Return the service for `options`.

    :raises SystemExit: with a line for each mistake, if the configuration cannot be used or a port cannot be
        listened on.
    """
    return start_up(options, lambda: _source(options))


def _source(options: Options) -> Source:
    if not options["demo"]:
        return chosen(options, os.environ)
    for name, words in (("config", "no config file"), ("upstream", "no upstream"), ("host", "no host")):
        if options[name]:
            raise ConfigError(f"--demo takes {words}; leave out --demo or --{name}")
    from stream_proxy.service.command.demo import Demo

    return Demo(options["port"])
