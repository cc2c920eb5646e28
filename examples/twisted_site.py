"""Proxy inside a twisted.web site, next to another resource.

    python examples/twisted_site.py https://api.openai.com 8000

This serves http://127.0.0.1:8000/hello, and forwards everything below http://127.0.0.1:8000/openai to the
upstream. The base URL for clients is http://127.0.0.1:8000/openai/v1.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.static import Data

from stream_proxy import ProxyResource, ProxySite

reactor: Any = _reactor


def make_site(upstream_url: str) -> tuple[ProxySite, ProxyResource]:
    """Return the site, and the proxy resource, which has to be closed at the end."""
    proxy = ProxyResource(upstream_url)
    root = Resource()
    root.putChild(b"openai", proxy)
    root.putChild(b"hello", Data(b"hello\n", "text/plain"))
    # A plain twisted.web.server.Site works too, but Twisted then buffers every upload until it is complete.
    return ProxySite(root), proxy


def main(upstream_url: str, port: str = "8000") -> None:
    """Serve until a signal arrives."""
    site, proxy = make_site(upstream_url)
    listening = reactor.listenTCP(int(port), site, interface="127.0.0.1")

    async def stop() -> None:
        await listening.stopListening()
        await site.drain(25)  # seconds for the requests under way
        await proxy.close()

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop()))
    print(f"listening on http://127.0.0.1:{listening.getHost().port}", flush=True)
    reactor.run()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
