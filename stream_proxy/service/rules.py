"""Rules become a service: each in its place, started, changed, drained and stopped."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

from msgspec import UnsetType
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IListeningPort

from stream_proxy.adapter.dialect import service_origin
from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.downstream.site import ProxySite
from stream_proxy.errors import ConfigError
from stream_proxy.flows.resource import ProxyResource
from stream_proxy.http.access import Access
from stream_proxy.http.url import parse_upstream_url
from stream_proxy.limits import Limits
from stream_proxy.request_log import RequestLog
from stream_proxy.service.config import Config, Rule
from stream_proxy.service.listening import Listener, endpoint_of, stop_accepting


class RuleService:
    """One rule in its place: the port, the site, the upstream.

    :param reactor: the reactor.
    :param place: where it is; it is closed when the service has stopped.
    :param rule: what to serve.
    :param limits: those of the rule.
    :param log: where requests are told.
    :raises ConfigError: the rule needs something that is not there.
    """

    def __init__(self, reactor: Any, place: Listener, rule: Rule, limits: Limits, log: RequestLog) -> None:
        self._reactor = reactor
        self._place = place
        self._log = log
        self._serves = (rule, limits)
        self.proxy = self._resource(rule, limits)
        self.site = ProxySite(self.proxy, reactor=reactor, limits=limits, log=log)
        self._port: IListeningPort | None = None

    def _resource(self, rule: Rule, limits: Limits) -> ProxyResource | AdapterResource:
        common: dict[str, Any] = {
            "reactor": self._reactor,
            "limits": limits,
            "log": self._log,
            "route": rule.route,
        }
        try:
            common["access"] = _access(rule)
            if rule.adapter is not None:
                return AdapterResource(rule.upstream_url, rule.adapter, **common)
            return ProxyResource(rule.upstream_url, include_usage=rule.include_usage, **common)
        except ValueError as error:  # all was well when the configuration was checked
            raise ConfigError(f"the rule at {endpoint_of(rule)} cannot be served any more: {error}") from None

    def start(self) -> None:
        """Listen, unless it does already."""
        if self._port is None:
            self._port = self._place.listen(self._reactor, self.site)

    def renew(self) -> None:
        """Read certificates again.

        :raises ConfigError: they cannot be used; then the old ones still are.
        """
        old = self._port
        if old is None or not self._place.encrypted:
            return
        # Both ports have the same socket, so that whoever waits to be accepted meets the one or the other.
        try:
            self._port = self._place.listen(self._reactor, self.site)
        except Exception as error:
            raise ConfigError(f"{self._place.endpoint} cannot be used: {error}") from None
        old.stopListening()

    def changed(self, rule: Rule, limits: Limits) -> ProxyResource | AdapterResource | None:
        """What would serve in future, or ``None`` where that is what serves now.

        :raises ConfigError: the rule needs something that is not there.
        """
        outside = rule.client_keys or rule.upstream_key or rule.ca_file or rule.certificate_file
        if (rule, limits) == self._serves and not outside:
            return None
        return self._resource(rule, limits)

    def change(self, rule: Rule, limits: Limits, proxy: ProxyResource | AdapterResource) -> None:
        """Serve new requests with `proxy`. Those under way end with the old one."""
        old, self.proxy = self.proxy, proxy
        self._serves = (rule, limits)
        self.site.resource = proxy
        self.site.change_limits(limits)
        old.close()

    def abort(self) -> None:
        """Wait no longer for requests under way."""
        self.site.abort()

    async def stop(self, grace: float | None) -> None:
        """Stop listening, let running requests end, close everything.

        :param grace: how many seconds they may take; ``None`` for as long as they like.
        """
        port, self._port = self._port, None
        self._place.close()  # the port has a duplicate
        if port is not None:
            await stop_accepting(port)
        await self.site.drain(grace)
        await self.proxy.close()


class ProxyService(Service):
    """All the rules of a configuration, served by this process.

    :param places: what is open, by description; those of the rules belong to the service.
    :param log: where requests are told.
    :raises ConfigError: a rule needs something that is not there.
    """

    def __init__(
        self, reactor: Any, config: Config, places: Mapping[str, Listener], *, log: RequestLog | None = None
    ) -> None:
        self._reactor = reactor
        self._log = log or RequestLog()
        self._grace = config.shutdown_grace_seconds
        #: What is served, by the descriptions of the places.
        self.rules = {endpoint_of(rule): self._serve(config, rule, places) for rule in config.rules}
        #: Rules that are no more, and end what they have begun.
        self._retired: dict[RuleService, Deferred[None]] = {}

    def _serve(self, config: Config, rule: Rule, places: Mapping[str, Listener]) -> RuleService:
        return RuleService(self._reactor, places[endpoint_of(rule)], rule, config.limits_of(rule), self._log)

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return bool(self.running)

    def privilegedStartService(self) -> None:
        """Listen, while there may be privileges to read keys with."""
        super().privilegedStartService()
        for rule in self.rules.values():
            rule.start()

    def startService(self) -> None:
        """Listen, if that is still to be done."""
        super().startService()
        for rule in self.rules.values():
            rule.start()

    def reload(self, config: Config, places: Mapping[str, Listener]) -> None:
        """Serve another configuration, without a connection being refused or cut.

        :param places: at least what was not open before.
        :raises ConfigError: a rule needs something that is not there; then nothing has changed.
        """
        now: dict[str, RuleService] = {}
        new: list[RuleService] = []
        changes: list[tuple[RuleService, Rule, Limits, ProxyResource | AdapterResource]] = []
        for rule in config.rules:
            endpoint, limits = endpoint_of(rule), config.limits_of(rule)
            service = self.rules.get(endpoint)
            if service is None:
                service = self._serve(config, rule, places)
                new.append(service)
            elif (proxy := service.changed(rule, limits)) is not None:
                changes.append((service, rule, limits, proxy))
            now[endpoint] = service
        for service in self.rules.values():
            service.renew()
        for service in new:
            service.start()
        for service, rule, limits, proxy in changes:
            service.change(rule, limits, proxy)
        gone = [service for endpoint, service in self.rules.items() if endpoint not in now]
        self.rules = now
        self._grace = config.shutdown_grace_seconds
        for service in gone:
            self._retire(service)

    def _retire(self, service: RuleService) -> None:
        def ended(result: Any) -> Any:
            del self._retired[service]
            return result

        stopping = Deferred.fromCoroutine(service.stop(None))
        self._retired[service] = stopping
        stopping.addBoth(ended)

    def abort(self) -> None:
        """Wait no longer for requests under way."""
        for service in (*self.rules.values(), *self._retired):
            service.abort()

    async def _stop(self) -> None:
        retired = list(self._retired.items())
        for service, _ in retired:
            service.site.drain(self._grace)
        await gatherResults(
            [
                *(Deferred.fromCoroutine(service.stop(self._grace)) for service in self.rules.values()),
                *(stopping for _, stopping in retired),
            ]
        )

    def stopService(self) -> Deferred[None]:
        """Stop listening, let running requests end, close everything."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())


def _access(rule: Rule) -> Access:
    source = rule.upstream_key
    clients = rule.client_keys.read() if rule.client_keys is not None else []
    return Access(clients) if source is None else Access(clients, source.read()[0], source.header)


def listening(rule: Rule) -> str:
    """What the log says of a rule that is listened for."""
    if rule.adapter is not None:
        upstream = service_origin(rule.upstream_url)
    else:
        url = parse_upstream_url(rule.upstream_url)
        upstream = url.origin + url.prefix.decode("ascii")
    where = f"port {rule.listen_port}" if not isinstance(rule.listen_port, UnsetType) else rule.listen
    address = f" of {rule.listen_address}" if rule.listen_address is not None else ""
    return f"listening on {where}{address} for {upstream}"


def settle() -> None:
    """Leave what starting up has made out of every later garbage collection: it is there to stay."""
    gc.collect()
    gc.freeze()
