"""Access control of a rule, as its configuration says."""

from __future__ import annotations

from stream_proxy.http.access import Access
from stream_proxy.service.configuration.types import Rule


def access_of(rule: Rule) -> Access:
    """Return the access of a rule, with the keys that are there now.

    :raises ValueError: a key cannot be read.
    """
    source = rule.upstream_key
    clients = rule.client_keys.read() if rule.client_keys is not None else []
    own, header = (source.read()[0], source.header) if source is not None else (None, None)
    changes = rule.request_headers.read() if rule.request_headers is not None else None
    return Access(clients, own, header, hosts=rule.hosts, origins=rule.origins, changes=changes)
