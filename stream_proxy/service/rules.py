"""Services of the rules: each with its listener, started, reloaded, drained and stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IListeningPort

from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.downstream.site import ProxySite
from stream_proxy.errors import ConfigError
from stream_proxy.flows.resource import ProxyResource
from stream_proxy.flows.resuming.resumption import LostCalls
from stream_proxy.http.access import Access
from stream_proxy.limits import Limits
from stream_proxy.observe.capture.capture import Capture
from stream_proxy.observe.ledger import Ledger
from stream_proxy.request_log import RequestLog
from stream_proxy.service.access import access_of
from stream_proxy.service.admin.capture.local import LocalCapture
from stream_proxy.service.admin.capture.options import CaptureOptions, capture_options
from stream_proxy.service.admin.local import LocalSource
from stream_proxy.service.configuration.types import Config, Rule
from stream_proxy.service.drain_log import DrainLog
from stream_proxy.service.listening import Listener, endpoint_of, stop_accepting
from stream_proxy.service.naming import rule_name
from stream_proxy.service.shared import Shared
from stream_proxy.transport.reactor import IReactor
from stream_proxy.upstream.route import Route


class _Options(TypedDict):
    """The arguments that both kinds of resources take."""

    reactor: IReactor
    limits: Limits
    log: RequestLog
    access: Access
    route: Route
    ledger: Ledger
    name: str


@dataclass(frozen=True, slots=True)
class Served:
    """A rule, its limits, and the resource that serves them."""

    rule: Rule
    limits: Limits
    resource: ProxyResource | AdapterResource


@dataclass(frozen=True, slots=True)
class RuleChange:
    """One rule's part of a reload. Everything that can fail has been done when it exists.

    :param served: serves new requests from now on; ``None`` if nothing changes.
    :param port: listens already, with new certificates; ``None`` if the old port stays.
    """

    service: RuleService
    served: Served | None
    port: IListeningPort | None


@dataclass(frozen=True, slots=True)
class Change:
    """A reload of all rules.

    :param config: the new configuration.
    :param services: what is served from now on, by endpoint.
    :param rules: what changes for each of these.
    :param retired: services of rules that no longer exist.
    :param capture: the options of captures.
    """

    config: Config
    services: dict[str, RuleService]
    rules: list[RuleChange]
    retired: list[RuleService]
    capture: CaptureOptions


class RuleService:
    """One rule: its port, its site, its upstream.

    :param listener: where the rule is served; it is closed when the service stops.
    :param limits: those of the rule.
    :param shared: what all rules use.
    :raises ConfigError: the rule needs something that does not exist, such as a file.
    """

    def __init__(self, listener: Listener, rule: Rule, limits: Limits, shared: Shared) -> None:
        self._reactor = shared.reactor
        self._listener = listener
        self._shared = shared
        #: Serves new requests.
        self.served = self._make(rule, limits)
        self.site = ProxySite(self.served.resource, reactor=shared.reactor, limits=limits, log=shared.log)
        self._port: IListeningPort | None = None

    def _make(self, rule: Rule, limits: Limits) -> Served:
        resource: ProxyResource | AdapterResource
        shared = self._shared
        try:
            options = _Options(
                reactor=self._reactor,
                limits=limits,
                log=shared.log,
                access=access_of(rule),
                route=rule.route,
                ledger=shared.ledger,
                name=rule_name(rule),
            )
            if rule.adapter is not None:
                resource = AdapterResource(rule.upstream_url, rule.adapter, **options)
            else:
                resource = ProxyResource(
                    rule.upstream_url, include_usage=rule.include_usage, lost=shared.lost, **options
                )
                resource.place = endpoint_of(rule)
        except ValueError as error:  # the configuration was valid, but files may have changed since
            raise ConfigError(f"the rule at {endpoint_of(rule)} cannot be served any more: {error}") from None
        return Served(rule, limits, resource)

    def start(self) -> None:
        """Listen, unless it does already."""
        if self._port is None:
            self._port = self._listener.listen(self._reactor, self.site)

    def plan(self, rule: Rule, limits: Limits) -> RuleChange:
        """Prepare to serve `rule`, in place of the current one, and to use certificates that were renewed.

        :raises ConfigError: the rule needs something that does not exist; then nothing has changed.
        """
        # A service that does not listen yet was made for this very rule.
        new = self._port is None
        # What files and the environment hold may have changed under the same name.
        keys = rule.client_keys or rule.upstream_key or rule.request_headers
        outside = keys or rule.ca_file or rule.certificate_file
        unchanged = (rule, limits) == (self.served.rule, self.served.limits) and not outside
        served = None if new or unchanged else self._make(rule, limits)
        if not new and not self._listener.encrypted:
            return RuleChange(self, served, None)
        # The old and the new port share a socket: a connection that waits there is accepted by either.
        try:
            return RuleChange(self, served, self._listener.listen(self._reactor, self.site))
        except Exception as error:
            raise ConfigError(f"{self._listener.endpoint} cannot be used: {error}") from None

    def apply(self, change: RuleChange) -> None:
        """Do what was planned. Requests that are running end with the old resource."""
        if change.port is not None:
            old_port, self._port = self._port, change.port
            if old_port is not None:
                old_port.stopListening()
        if change.served is not None:
            old, self.served = self.served, change.served
            self.site.resource = change.served.resource
            self.site.change_limits(change.served.limits)
            old.resource.close()
        elif isinstance(self.served.resource, ProxyResource):
            self.served.resource.memory.forget()

    async def stop(self, grace: float | None) -> None:
        """Stop listening, let running requests end, close everything.

        :param grace: how many seconds they may take; ``None``: any time.
        """
        port, self._port = self._port, None
        self._listener.close()  # the port has a duplicate of the socket
        if port is not None:
            await stop_accepting(port)
        await self.site.drain(grace)
        await self.served.resource.close()


class ProxyService(Service):
    """All rules of a configuration, served by this process.

    :param listeners: open listeners by endpoint; those of the rules belong to the service from now on.
    :param log: logs the requests.
    :raises ConfigError: a rule needs something that does not exist.
    """

    def __init__(
        self, reactor: IReactor, config: Config, listeners: Mapping[str, Listener], *, log: RequestLog
    ) -> None:
        self._grace = config.shutdown_grace_seconds
        lost = LostCalls(reactor, config.resume_max_calls, config.resume_max_bytes)
        ledger = Ledger(reactor.seconds, watches=config.metrics.streams, keeps=config.admin is not None)
        #: What all rules use.
        self.shared = Shared(reactor, log, ledger, lost)
        #: The requests under way, for the admin port.
        self.source = LocalSource(self.shared.ledger, lambda: self._capture.secrets)
        self._capture = Capture(self.shared.ledger, **capture_options(config))
        #: Whole exchanges, for the admin port.
        self.captures = LocalCapture(reactor, self._capture)
        #: What is served, by endpoint.
        self.rules = {endpoint_of(rule): self._make(config, rule, listeners) for rule in config.rules}
        #: Services of removed rules that still have requests, with the Deferreds of their ends.
        self._retired: dict[RuleService, Deferred[None]] = {}

    def _make(self, config: Config, rule: Rule, listeners: Mapping[str, Listener]) -> RuleService:
        return RuleService(listeners[endpoint_of(rule)], rule, config.limits_of(rule), self.shared)

    @property
    def ready(self) -> bool:
        """Whether it accepts requests."""
        return bool(self.running)

    def privilegedStartService(self) -> None:
        """Listen while there may be privileges, which reading the keys of certificates may need."""
        super().privilegedStartService()
        for rule in self.rules.values():
            rule.start()

    def startService(self) -> None:
        """Listen, unless it does already."""
        super().startService()
        for rule in self.rules.values():
            rule.start()

    def reload(self, config: Config, listeners: Mapping[str, Listener]) -> None:
        """Serve another configuration; no connection is refused or cut.

        :param listeners: at least those that were not open before.
        :raises ConfigError: a rule needs something that does not exist; then nothing has changed.
        """
        self.apply(self.plan(config, listeners))

    def plan(self, config: Config, listeners: Mapping[str, Listener]) -> Change:
        """Do all of a reload that can fail.

        :raises ConfigError: as for :meth:`reload`.
        """
        capture = capture_options(config)
        services: dict[str, RuleService] = {}
        changes: list[RuleChange] = []
        try:
            for rule in config.rules:
                endpoint = endpoint_of(rule)
                service = self.rules.get(endpoint) or self._make(config, rule, listeners)
                services[endpoint] = service
                changes.append(service.plan(rule, config.limits_of(rule)))
        except BaseException:
            for port in (change.port for change in changes if change.port is not None):
                port.stopListening()
            raise
        retired = [service for endpoint, service in self.rules.items() if endpoint not in services]
        return Change(config, services, changes, retired, capture)

    def apply(self, change: Change) -> None:
        """Do what was planned."""
        config, ledger = change.config, self.shared.ledger
        self.rules, self._grace = change.services, config.shutdown_grace_seconds
        self.shared.lost.reload(config.resume_max_calls, config.resume_max_bytes)
        ledger.watches, ledger.keeps = config.metrics.streams, config.admin is not None
        for each in change.rules:
            each.service.apply(each)
        self._capture.change(**change.capture)
        for service in change.retired:
            self._retire(service)

    def _retire(self, service: RuleService) -> None:
        def ended(result: object) -> object:
            del self._retired[service]
            return result

        stopping = Deferred.fromCoroutine(service.stop(None))
        self._retired[service] = stopping
        stopping.addBoth(ended)

    def leave(self) -> None:
        """Let responses that can say so be the last of their connections; everything else goes on."""
        for service in self.rules.values():
            service.site.leaving = True

    def abort(self) -> None:
        """Abort the requests that are running."""
        for service in (*self.rules.values(), *self._retired):
            service.site.abort()

    async def _stop(self) -> None:
        self.shared.lost.close()
        retired = list(self._retired.items())
        for service, _ in retired:
            service.site.drain(self._grace)  # until now they had any time
        stops = [Deferred.fromCoroutine(service.stop(self._grace)) for service in self.rules.values()]
        with DrainLog(self.shared.reactor, self.shared.log, self.shared.ledger.live):
            await gatherResults([*stops, *(stopping for _, stopping in retired)])

    def stopService(self) -> Deferred[None]:
        """Stop listening, let running requests end, close everything."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())
