"""Types of the configuration: its keys, their defaults, and what each means.

The reference in docs, the JSON Schema and the messages about mistakes are made from these.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.flows.conversion.call import IncludeUsage
from stream_proxy.limits import (
    FirstEventSeconds,
    KeepAliveSeconds,
    Limits,
    MaxConnections,
    MaxUpstreamConnections,
    MaxUpstreamWaiting,
    NoSeconds,
    ResumeSeconds,
    Retries,
    RetryAfterMaxSeconds,
    StalledSeconds,
    TimeoutSeconds,
    WebSocketPingSeconds,
)
from stream_proxy.service.configuration.request_headers import RequestHeaders
from stream_proxy.service.keys import KeySource, UpstreamKeySource
from stream_proxy.upstream.route import Route

Port = Annotated[int, Meta(ge=1, le=65535)]


class Rule(Struct, frozen=True, rename="camel", kw_only=True):
    """One listening port and the upstream behind it."""

    name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=64)] | None,
        Meta(description="what the log, the metrics and the admin page call it, by default its port"),
    ] = None
    listen_port: Annotated[Port | UnsetType, Meta(description="the port")] = UNSET
    listen_address: Annotated[
        str | None,
        Meta(
            description="one IPv4 or IPv6 address to listen on, such as `127.0.0.1`; all are IPv4's and "
            "IPv6's, whatever `net.ipv6.bindv6only` is"
        ),
    ] = None
    listen: Annotated[
        str | None,
        Meta(
            description="instead of both, the description of a Twisted endpoint: TLS, UNIX sockets, "
            "systemd, HAProxy"
        ),
    ] = None
    upstream_url: Annotated[
        str,
        Meta(
            description="`http://` or `https://`, host, optional port and path; no user name, no query. "
            "One rule may be another's upstream, but none may lead back to itself"
        ),
    ]
    adapter: Annotated[
        AdapterConfig | None,
        Meta(description="turns the rule into a facade for a service that is not OpenAI-compatible"),
    ] = None
    include_usage: Annotated[
        IncludeUsage,
        Meta(
            description='whether to ask for token usage in chat streams: `"always"`, `"never"`, or '
            '`"auto"`: yes, unless the upstream refuses it'
        ),
    ] = "auto"

    # Keys: of the clients that may call, and the one that the upstream is sent.
    client_keys: Annotated[KeySource | None, Meta(description="who may call")] = None
    upstream_key: Annotated[
        UpstreamKeySource | None, Meta(description="which key the upstream is called with")
    ] = None
    request_headers: Annotated[
        RequestHeaders | None, Meta(description="header fields that requests go upstream with, or without")
    ] = None
    # Where everyone may spend the latter: the names and the pages by which browsers may call.
    hosts: Annotated[
        tuple[str, ...],
        Meta(
            description="by which names, besides `localhost` and addresses, a rule may be called that "
            "spends its own key for everyone"
        ),
    ] = ()
    origins: Annotated[
        tuple[str, ...] | None,
        Meta(description="from which web pages such a rule may be called, by default those of this machine"),
    ] = None

    # The connection to the upstream.
    proxy: Annotated[
        str | None,
        Meta(description='the egress proxy, or `"direct"` for none; by default what the environment says'),
    ] = None
    ca_file: Annotated[
        str | None,
        Meta(
            description="a PEM file of the authorities that may have signed the upstream's certificate, "
            "by default the system's"
        ),
    ] = None
    certificate_file: Annotated[
        str | None,
        Meta(description="a PEM file of the client certificate, for upstreams that require one"),
    ] = None
    key_file: Annotated[
        str | None,
        Meta(description="a PEM file of its key, if that is not in `certificateFile`"),
    ] = None

    # Override the limits of the same name.
    timeout_seconds: TimeoutSeconds | None = None
    keep_alive_seconds: KeepAliveSeconds | None = None
    first_event_seconds: FirstEventSeconds | None = None
    stalled_seconds: StalledSeconds | None = None
    resume_seconds: ResumeSeconds | None = None
    retries: Retries | None = None
    retry_after_max_seconds: RetryAfterMaxSeconds | None = None
    web_socket_ping_seconds: WebSocketPingSeconds | None = None
    max_connections: MaxConnections | None = None
    max_upstream_connections: MaxUpstreamConnections | None = None
    max_upstream_waiting: MaxUpstreamWaiting | None = None

    @property
    def open_wallet(self) -> bool:
        """Whether everyone who can connect spends a key of the operator's."""
        parts = (self.adapter, self.request_headers)
        injects = any(part is not None and part.injects for part in parts)
        return self.client_keys is None and (injects or self.upstream_key is not None)

    @property
    def route(self) -> Route:
        """How the upstream is reached."""
        return Route(self.proxy, self.ca_file, self.certificate_file, self.key_file)


class Admin(Struct, frozen=True, rename="camel", kw_only=True):
    """The port for operators: health checks, metrics and the page."""

    listen_port: Annotated[Port, Meta(description="the port")]
    listen_address: Annotated[str, Meta(description="the one IPv4 or IPv6 address to listen on")] = (
        "127.0.0.1"
    )
    key: Annotated[
        KeySource | None,
        Meta(
            description="who may see the page and the metrics; required where other machines can connect, "
            "and wherever there is a `capture`"
        ),
    ] = None
    hosts: Annotated[
        tuple[str, ...],
        Meta(description="by which names, besides `localhost` and addresses, it may be called"),
    ] = ()
    open_metrics: Annotated[bool, Meta(description="whether `/metrics` needs no key")] = False


class LogConfig(Struct, frozen=True, rename="camel", kw_only=True):
    """What the log looks like."""

    format: Annotated[
        Literal["text", "json"], Meta(description="`json` is one object a line, with stable names")
    ] = "text"
    level: Annotated[
        Literal["debug", "info", "warn", "warning", "error"] | None,
        Meta(
            description="the lowest level that is logged, by default the environment's `LOG_LEVEL`, else "
            "`info`"
        ),
    ] = None


class MetricsConfig(Struct, frozen=True, rename="camel", kw_only=True):
    """What ``/metrics`` of the admin port counts."""

    models: Annotated[
        tuple[str, ...] | None,
        Meta(
            description="the models that have figures of their own, all others together; by default the "
            "first 100 of a rule"
        ),
    ] = None
    streams: Annotated[
        bool, Meta(description="whether tokens and the first event of streams that pass through are counted")
    ] = True


class CaptureConfig(Struct, frozen=True, rename="camel", kw_only=True):
    """A bounded ring of whole exchanges, to be looked at on the admin page."""

    megabytes: Annotated[int, Meta(ge=1, description="how much is kept in memory")] = 64
    bodies: Annotated[bool, Meta(description="whether bodies are kept, not only heads and times")] = True


class Config(Limits, frozen=True, rename="camel", kw_only=True):
    """A whole configuration."""

    rules: Annotated[list[Rule], Meta(min_length=1, description="what is served: at least one rule")]
    admin: Annotated[
        Admin | None, Meta(description="the port for operators: health checks, metrics and the page")
    ] = None
    log: Annotated[LogConfig, Meta(description="what the log looks like")] = LogConfig()
    metrics: Annotated[MetricsConfig, Meta(description="what the metrics count")] = MetricsConfig()
    capture: Annotated[
        CaptureConfig | None, Meta(description="keeps whole exchanges, to be looked at on the admin page")
    ] = None
    workers: Annotated[
        int, Meta(ge=1, le=64, description="how many processes serve; one per core is right")
    ] = 1
    drain_delay_seconds: Annotated[
        NoSeconds,
        Meta(
            description="how long, after SIGTERM, the ports stay open while `/readyz` is 503 already, so "
            "that load balancers learn of it"
        ),
    ] = 0.0
    shutdown_grace_seconds: Annotated[
        NoSeconds, Meta(description="how long running requests may continue after that")
    ] = 25.0

    def limits_of(self, rule: Rule) -> Limits:
        """Return the limits of `rule`: its own, else the configuration's."""
        values = {name: getattr(self, name) for name in Limits.__struct_fields__}
        own = {name: value for name in values if (value := getattr(rule, name, None)) is not None}
        return Limits(**{**values, **own})
