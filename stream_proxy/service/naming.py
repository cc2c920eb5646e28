"""Names of rules, in the log and on the admin port."""

from __future__ import annotations

from msgspec import UnsetType

from stream_proxy.adapter.dialect import service_origin
from stream_proxy.http.url import parse_upstream_url
from stream_proxy.service.configuration.types import Rule
from stream_proxy.service.listening import endpoint_of


def rule_name(rule: Rule) -> str:
    """Return the name of a rule in the log and on the admin port: its own, else its port."""
    if rule.name is not None:
        return rule.name
    return endpoint_of(rule) if isinstance(rule.listen_port, UnsetType) else str(rule.listen_port)


def listening(rule: Rule) -> str:
    """Return the line that is logged when a rule's listener opens."""
    if rule.adapter is not None:
        upstream = service_origin(rule.upstream_url)
    else:
        url = parse_upstream_url(rule.upstream_url)
        upstream = url.origin + url.prefix.decode("ascii")
    where = f"port {rule.listen_port}" if not isinstance(rule.listen_port, UnsetType) else rule.listen
    address = f" of {rule.listen_address}" if rule.listen_address is not None else ""
    return f"listening on {where}{address} for {upstream}"
