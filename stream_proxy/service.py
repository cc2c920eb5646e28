"""Rules become a service: one listening port each, started, drained and stopped."""

from __future__ import annotations

import gc
import socket
from typing import Any

from twisted.application.internet import TCPServer
from twisted.internet.defer import Deferred

from stream_proxy.adapter.dialect import service_origin
from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.config import Config, ConfigError, Rule
from stream_proxy.downstream import ProxySite
from stream_proxy.outcome import RequestLog
from stream_proxy.resource import ProxyResource
from stream_proxy.stopping import StoppableService
from stream_proxy.url import parse_upstream_url

#: How many connections may wait to be accepted.
BACKLOG = 1024


class RuleService(TCPServer):
    """One rule: its port, its site, its upstream.

    :param reactor: the reactor.
    :param rule: what to serve.
    :param config: the limits that hold for all rules.
    :param log: where requests are told.
    :param ports: what listens in place of the reactor; who opened the port has told the log.
    """

    def __init__(self, reactor: Any, rule: Rule, config: Config, log: RequestLog, ports: Any = None) -> None:
        self.proxy: ProxyResource | AdapterResource
        if rule.adapter is not None:
            self.proxy = AdapterResource(
                rule.upstream_url, rule.adapter, reactor=reactor, limits=config, log=log
            )
        else:
            self.proxy = ProxyResource(
                rule.upstream_url, reactor=reactor, include_usage=rule.include_usage, limits=config, log=log
            )
        self.site = ProxySite(self.proxy, reactor=reactor, limits=config.limits_of(rule), log=log)
        self._grace = config.shutdown_grace_seconds
        self._log = log
        self._listening = listening(rule) if ports is None else None
        super().__init__(
            rule.listen_port,
            self.site,
            interface=interface_of(rule),
            backlog=BACKLOG,
            reactor=ports or reactor,
        )

    def startService(self) -> None:
        """Listen, and say so."""
        super().startService()
        if self._listening is not None:
            self._log.info(self._listening)

    def abort(self) -> None:
        """Wait no longer for requests under way."""
        self.site.abort()

    async def _stop(self, listening: Deferred[object] | None) -> None:
        if listening is not None:
            await listening
        await self.site.drain(self._grace)
        await self.proxy.close()

    def stopService(self) -> Deferred[None]:
        """Stop listening, let running requests end, close everything."""
        return Deferred.fromCoroutine(self._stop(super().stopService()))


class ProxyService(StoppableService):
    """All the rules of a configuration.

    :param handle_signals: in a process of its own: a second SIGTERM or SIGINT ends the waiting of the first.
    :param ports: what listens in place of the reactor, where the rules' ports are open already.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        *,
        log: RequestLog | None = None,
        handle_signals: bool = False,
        ports: Any = None,
    ) -> None:
        super().__init__(reactor, handle_signals=handle_signals)
        self.rules = [RuleService(reactor, rule, config, log or RequestLog(), ports) for rule in config.rules]
        for rule in self.rules:
            rule.setServiceParent(self)

    def abort(self) -> None:
        """Wait no longer for requests under way."""
        for rule in self.rules:
            rule.abort()


def listening(rule: Rule) -> str:
    """What the log says of a rule whose port is open."""
    if rule.adapter is not None:
        place = service_origin(rule.upstream_url)
    else:
        url = parse_upstream_url(rule.upstream_url)
        place = url.origin + url.prefix.decode("ascii")
    where = f" of {rule.listen_address}" if rule.listen_address is not None else ""
    return f"listening on port {rule.listen_port}{where} for {place}"


def interface_of(rule: Rule) -> str:
    """The address that a rule listens on; all of them, if it names none."""
    return rule.listen_address or any_interface()


def settle() -> None:
    """Leave what starting up has made out of every later garbage collection: it is there to stay."""
    gc.collect()
    gc.freeze()


def any_interface() -> str:
    """All addresses: ``::`` takes IPv6 and IPv4, where there is IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return ""
    return "::"


def check_port(port: int, interface: str, place: str) -> None:
    """See that a port can be listened on, while a plain sentence can still be said.

    :param place: the file and field that name the port.
    :raises ConfigError: if it cannot.
    """
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((interface, port))
            probe.listen(1)
    except OSError as error:
        raise ConfigError(f"{place}: cannot listen on port {port}: {error.strerror}") from None
