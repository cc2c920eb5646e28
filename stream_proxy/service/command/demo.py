"""Demo: an embedded upstream that only streams, the proxy in front of it, and what to try."""

from __future__ import annotations

import json
import sys

from twisted.application.service import IService, Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort

from stream_proxy.errors import ConfigError
from stream_proxy.mock import mock_site
from stream_proxy.request_log import RequestLog
from stream_proxy.service.command.sources import port_number
from stream_proxy.service.configuration.loading import check_config
from stream_proxy.service.configuration.types import Config, LogConfig
from stream_proxy.service.main import MainService
from stream_proxy.transport.ports import probe, tcp_socket
from stream_proxy.transport.reactor import IReactor

_HOST = "127.0.0.1"
_ADMIN_PORT = 9901
_CALL = {"model": "demo", "messages": [{"role": "user", "content": "Hello!"}]}


class Demo:
    """The demo on a port, and its admin port beside it.

    :param port: the option of the command line.
    """

    log = LogConfig()

    def __init__(self, port: str | None) -> None:
        self._port = port_number(port)

    def named(self, key: str) -> str:
        """Return how errors name a key of the configuration."""
        return "--demo --port" if key == "rules[0].listenPort" else f"--demo: {key}"

    def service(self, reactor: IReactor, log: RequestLog) -> IService:
        """Return the service, which prints what to try when it runs.

        :raises ConfigError: the port is none, or is taken.
        """
        # The rule needs the number of the ephemeral port, so the upstream listens before the proxy exists.
        site = mock_site(reactor, streams_only=True)
        site.noisy = False
        port = reactor.listenTCP(0, site, interface=_HOST)
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        upstream = _Listening(port)
        try:
            config = self._config(f"http://{_HOST}:{address.port}")
            service = MainService(reactor, config, log, self.named)
        except ConfigError:
            upstream.stopService()
            raise
        upstream.setServiceParent(service)
        reactor.callWhenRunning(_show, introduction(config))
        return service

    def _config(self, upstream_url: str) -> Config:
        rule = {"listenPort": self._port, "listenAddress": _HOST, "upstreamUrl": upstream_url}
        return check_config({"rules": [rule], "admin": {"listenPort": _admin_port()}}, self.named)


class _Listening(Service):
    """A port that listens already, closed with its parent service."""

    def __init__(self, port: IListeningPort) -> None:
        self._port = port

    def stopService(self) -> Deferred[None] | None:
        return self._port.stopListening()


def introduction(config: Config) -> str:
    """Return what to try, and where to look."""
    (rule,) = config.rules
    proxy = f"http://{_HOST}:{rule.listen_port}"
    return f"""
This upstream only streams, as some providers do. It refuses an ordinary call:

  {_curl(rule.upstream_url)}

The same call through the proxy is answered:

  {_curl(proxy)}

Clients of OpenAI's API use the base URL {proxy}/v1, with any key.
{_page(config)}Ctrl-C ends the demo.
"""


def _page(config: Config) -> str:
    """Return the line about the admin port."""
    if config.admin is None:
        return ""
    page = f"http://{_HOST}:{config.admin.listen_port}/"
    return f"What happens: {page} (with -H 'X-Mock-Pace: 0.2' a call is slow enough to be watched)\n"


def _curl(origin: str) -> str:
    return (
        f"curl -s {origin}/v1/chat/completions -H 'Content-Type: application/json' -d '{json.dumps(_CALL)}'"
    )


def _show(text: str) -> None:
    # twistd makes entries of the log out of what is printed to sys.stdout.
    if sys.__stdout__ is not None:
        print(text, file=sys.__stdout__, flush=True)


def _admin_port() -> int:
    """Return the admin port, or any other if that is taken."""
    try:
        probe(_ADMIN_PORT, _HOST)
    except OSError:
        with tcp_socket(_HOST) as free:
            free.bind((_HOST, 0))
            port: int = free.getsockname()[1]
            return port
    return _ADMIN_PORT
