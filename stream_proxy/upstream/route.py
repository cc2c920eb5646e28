"""Routes to upstreams: the egress proxy, the trusted authorities, and the client certificate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

from stream_proxy.http.headers import RawHeader
from stream_proxy.http.url import UpstreamURL
from stream_proxy.upstream.egress import EgressProxy, egress_proxy
from stream_proxy.upstream.failures import Peer
from stream_proxy.upstream.pem import read_authorities, read_identity
from stream_proxy.upstream.tls import VerifyingPolicy
from stream_proxy.upstream.tunnel import TunnelEndpoint


@dataclass(frozen=True)
class Route:
    """Settings of a rule for reaching its upstream.

    :param proxy: the egress proxy, ``http://[user:password@]host:port``, in which ``${NAME}`` is a variable
        of the environment; ``"direct"`` for none. By default ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``
        of the environment count. This machine itself is always reached directly.
    :param ca_file: a PEM file with the authorities to trust in place of the system's.
    :param certificate_file: a PEM file with the client certificate, and the chain above it.
    :param key_file: a PEM file with its key, if that is not in `certificate_file`.
    """

    proxy: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None

    def check(self, url: UpstreamURL, environ: Mapping[str, str] | None = None) -> None:
        """Check that the settings can be used for `url`.

        :raises ValueError: with one line that begins with the key at fault, and quotes no secret.
        """
        self.egress(url, environ)
        self.policy(url)

    def egress(self, url: UpstreamURL, environ: Mapping[str, str] | None = None) -> EgressProxy | None:
        """Return the egress proxy, if any; raises as :meth:`check` does."""
        try:
            return egress_proxy(url, self.proxy, os.environ if environ is None else environ)
        except ValueError as error:
            raise ValueError(f"proxy: {error}") from None

    def policy(self, url: UpstreamURL) -> VerifyingPolicy:
        """Return the TLS policy; raises as :meth:`check` does."""
        files = {
            "caFile": self.ca_file,
            "certificateFile": self.certificate_file,
            "keyFile": self.key_file,
        }
        for name, path in files.items():
            if path is not None and url.scheme != "https":
                raise ValueError(f"{name}: needs an https upstreamUrl")
        if self.key_file is not None and self.certificate_file is None:
            raise ValueError("keyFile: needs a certificateFile")
        authorities = read_authorities(self.ca_file) if self.ca_file is not None else None
        identity = None
        if self.certificate_file is not None:
            identity = read_identity(self.certificate_file, self.key_file)
        return VerifyingPolicy(authorities, identity)


class ResolvedRoute:
    """Endpoints that a route leads to, for one upstream.

    :param connect_seconds: the limit for each TCP connection.
    :raises ValueError: as :meth:`Route.check`.
    """

    def __init__(self, reactor: Any, url: UpstreamURL, route: Route, connect_seconds: float) -> None:
        proxy = route.egress(url)
        policy = route.policy(url)
        peer = Peer(url.origin, url.host, certificate=route.certificate_file is not None, proxy=proxy)
        #: Key of its connections in a pool; without a proxy and files, the one that Twisted's agents use.
        self.key: tuple[object, ...] = (url.scheme, url.host, url.port)
        if proxy is not None or route != Route():
            self.key = (*self.key, proxy, route)
        #: Prefix for the target of each request, and fields to add to it.
        self.before_target = b""
        self.fields: list[RawHeader] = []
        endpoint: IStreamClientEndpoint
        if proxy is None:
            endpoint = HostnameEndpoint(reactor, url.host, url.port, timeout=connect_seconds)
        else:
            leads = _to_proxy(reactor, proxy, connect_seconds)
            endpoint = TunnelEndpoint(leads, proxy, url.authority)
        if url.scheme == "https":
            creator = policy.creatorForNetloc(url.host.encode("ascii"), url.port)
            endpoint = wrapClientTLS(creator, endpoint)
        #: ``endpoint`` leads to the upstream, ``requests`` to the server that reads requests for it; ``peer``
        #: and ``answers`` name these two in errors. They differ for http behind a proxy alone.
        self.endpoint = self.requests = endpoint
        self.peer = self.answers = peer
        if proxy is not None and url.scheme == "http":
            # The proxy reads such requests and makes its own to the upstream (RFC 9112 section 3.2.2).
            self.requests, self.answers = leads, Peer.of_proxy(proxy)
            self.before_target = b"http://" + url.netloc
            if proxy.authorization is not None:
                self.fields = [(b"Proxy-Authorization", proxy.authorization)]

    @property
    def reads_requests(self) -> bool:
        """Whether requests go to a proxy that reads them."""
        return bool(self.before_target)


def _to_proxy(reactor: Any, proxy: EgressProxy, connect_seconds: float) -> IStreamClientEndpoint:
    url = proxy.url
    endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, url.host, url.port, timeout=connect_seconds)
    if url.scheme == "https":
        endpoint = wrapClientTLS(
            VerifyingPolicy().creatorForNetloc(url.host.encode("ascii"), url.port), endpoint
        )
    return endpoint
