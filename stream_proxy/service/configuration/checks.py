"""Checks of a configuration beyond its types: addresses, URLs, files, and what does not go together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from ipaddress import ip_address

import msgspec
from msgspec import UNSET, UnsetType

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.dialect import Dialect
from stream_proxy.http.origin import Pages
from stream_proxy.http.url import UpstreamURL, parse_upstream_url
from stream_proxy.service.configuration.shape import Mistake
from stream_proxy.service.configuration.types import Admin, Rule
from stream_proxy.service.keys import KeySource, UpstreamKeySource

#: Yields problems, each as ``key: problem``.
_Check = Callable[[Rule], Iterable[str]]


def check_rules(rules: Iterable[tuple[str, Rule, set[str]]], taken: dict[int, str]) -> Iterator[Mistake]:
    """Yield the mistakes of rules.

    :param rules: each with its place, as ``rules[0]``, and those of its keys of which nothing is known.
    :param taken: the ports that are taken, and by what; those of the rules are added.
    """
    names: dict[str, str] = {}
    for place, rule, unknown in rules:
        for keys, check in _RULE_CHECKS:
            if unknown.isdisjoint(keys):
                yield from (_mistake(place, problem) for problem in check(rule))
        if not isinstance(rule.listen_port, UnsetType) and "listenPort" not in unknown:
            yield from _claim(taken, rule.listen_port, place)
            name = str(rule.listen_port)  # by which the log and the metrics call a rule without one
            if rule.name is None and taken[rule.listen_port] == place:
                first = names.setdefault(name, place)
                if first != place:
                    yield Mistake(f"{place}.listenPort", f"{name} is already the name of {first}")
        if rule.name is not None and "name" not in unknown:
            first = names.setdefault(rule.name, place)
            if first != place:
                yield Mistake(f"{place}.name", f"{rule.name} is already the name of {first}")


def check_admin(admin: Admin, unknown: set[str], captures: bool, taken: dict[int, str]) -> Iterator[Mistake]:
    """Yield the mistakes of the admin port.

    :param unknown: its keys of which nothing is known.
    :param captures: whether exchanges are captured.
    :param taken: the ports that are taken, and by what.
    """
    if "listenPort" not in unknown:
        yield from _claim(taken, admin.listen_port, "admin")
    if "listenAddress" not in unknown:
        for problem in _address(admin.listen_address):
            unknown = unknown | {"listenAddress"}
            yield _mistake("admin", problem)
    yield from (_mistake("admin", problem) for problem in _hosts(admin.hosts, None))
    if "key" in unknown:
        return
    if admin.key is not None:
        yield from (_mistake("admin", problem) for problem in _key("key", admin.key))
    elif captures:
        yield Mistake("admin.key", "is required where there is a capture: it shows what other users sent")
    elif "listenAddress" not in unknown and not ip_address(admin.listen_address).is_loopback:
        yield Mistake("admin.key", "is required where other machines can connect; or leave listenAddress out")


def exposed(rules: Iterable[Rule], admin: Admin | None) -> list[str]:
    """Return a warning for each file of keys that everyone on this machine can read."""
    sources = [
        (f"rules[{index}].{key}", source)
        for index, rule in enumerate(rules)
        for key, source in (("clientKeys", rule.client_keys), ("upstreamKey", rule.upstream_key))
    ]
    sources.append(("admin.key", admin.key if admin is not None else None))
    return [
        f"{key}: everyone on this machine can read {source.file}"
        for key, source in sources
        if source is not None and source.exposed
    ]


def _mistake(place: str, problem: str) -> Mistake:
    key, _, text = problem.partition(": ")
    return Mistake(f"{place}.{key}", text)


def _claim(taken: dict[int, str], port: int, place: str) -> Iterator[Mistake]:
    first = taken.setdefault(port, place)
    if first != place:
        yield Mistake(f"{place}.listenPort", f"port {port} is already used by {first}")


def _place(rule: Rule) -> Iterator[str]:
    if rule.listen is None and rule.listen_port is UNSET:
        yield "listenPort: is required"
    if rule.listen is not None and (rule.listen_port is not UNSET or rule.listen_address is not None):
        yield "listen: stands in place of listenPort and listenAddress; leave these out"


def _address(address: str) -> Iterator[str]:
    try:
        ip_address(address)
    except ValueError:
        yield "listenAddress: must be an IPv4 or IPv6 address, such as 127.0.0.1"


def _rule_address(rule: Rule) -> Iterator[str]:
    if rule.listen_address is not None:
        yield from _address(rule.listen_address)


def _name(rule: Rule) -> Iterator[str]:
    if rule.name is not None and not rule.name.isprintable():
        yield "name: must hold printable characters alone"


def _key(name: str, source: KeySource | None) -> Iterator[str]:
    if source is not None:
        try:
            source.read()
        except ValueError as error:
            below = str(error).startswith(("environment: ", "header: "))
            yield f"{name}{'.' if below else ': '}{error}"


def _hosts(hosts: Iterable[str], origins: Iterable[str] | None) -> Iterator[str]:
    for host in hosts:
        yield from _raised(partial(Pages, (host,)))
    for origin in origins or ():
        yield from _raised(partial(Pages, (), (origin,)))


def _raised(call: Callable[[], object]) -> Iterator[str]:
    try:
        call()
    except ValueError as error:
        yield str(error)


def _url(rule: Rule) -> Iterator[str]:
    if rule.adapter is None:
        yield from _raised(lambda: _upstream(rule))
    else:
        yield from _dialect(rule.upstream_url, rule.adapter)


def _dialect(url: str, config: AdapterConfig) -> Iterator[str]:
    """Yield the problems of an adapter: what is wrong is taken out, until nothing is."""
    defaults = msgspec.structs.asdict(AdapterConfig())
    fields = {field.encode_name: field.name for field in msgspec.structs.fields(AdapterConfig)}
    for _ in range(len(fields) + len(config.headers)):
        try:
            Dialect(url, config)
        except ValueError as error:
            yield str(error)
            names = str(error).partition(": ")[0].split(".", 2)
            if names[0] != "adapter" or len(names) < 2:
                return
            name = fields.get(names[1].partition("[")[0])
            if name is None:
                return
            value = defaults[name]
            if name == "headers":
                value = {key: each for key, each in config.headers.items() if names[2:] != [key]}
            config = msgspec.structs.replace(config, **{name: value})
        else:
            return


def _upstream(rule: Rule) -> UpstreamURL:
    if rule.adapter is not None:
        return Dialect(rule.upstream_url, rule.adapter).url
    try:
        return parse_upstream_url(rule.upstream_url)
    except ValueError as error:
        raise ValueError(f"upstreamUrl: {error}") from None


def _request_headers(rule: Rule) -> Iterator[str]:
    if rule.request_headers is not None:
        source = rule.upstream_key
        field = None if source is None else (source.header or "Authorization").lower()
        for problem in rule.request_headers.problems(field):
            yield f"requestHeaders.{problem}"


def _one_key(rule: Rule) -> Iterator[str]:
    if rule.adapter is not None and rule.upstream_key is not None:
        yield from _keys_of_adapter(rule.upstream_key, rule.adapter)


def _keys_of_adapter(source: UpstreamKeySource, adapter: AdapterConfig) -> Iterator[str]:
    if adapter.forward_authorization:
        yield "adapter.forwardAuthorization: upstreamKey stands in its place; leave one out"
    field = (source.header or "Authorization").lower()
    for name in adapter.headers:
        if name.lower() == field:
            yield f"adapter.headers.{name}: upstreamKey stands in its place; leave one out"


def _route(rule: Rule) -> Iterator[str]:
    try:
        url = _upstream(rule)
    except ValueError:
        return  # it has been told
    yield from _raised(lambda: rule.route.egress(url))
    yield from _raised(lambda: rule.route.policy(url))


_RULE_CHECKS: tuple[tuple[tuple[str, ...], _Check], ...] = (
    (("name",), _name),
    (("listen", "listenPort", "listenAddress"), _place),
    (("listenAddress",), _rule_address),
    (("upstreamUrl", "adapter"), _url),
    (("clientKeys",), lambda rule: _key("clientKeys", rule.client_keys)),
    (("upstreamKey",), lambda rule: _key("upstreamKey", rule.upstream_key)),
    (("upstreamKey", "adapter"), _one_key),
    (("requestHeaders", "upstreamKey"), _request_headers),
    (("hosts", "origins"), lambda rule: _hosts(rule.hosts, rule.origins)),
    (("upstreamUrl", "adapter", "proxy", "caFile", "certificateFile", "keyFile"), _route),
)
