"""The proxy inside a twisted.web site of one's own, next to another resource.

    python examples/twisted_site.py https://api.openai.com 8000

serves http://127.0.0.1:8000/hello and passes what is below http://127.0.0.1:8000/openai on to the upstream.
The base URL for a client is http://127.0.0.1:8000/openai/v1.
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
    """The site, and the resource in it that has to be closed in the end."""
    proxy = ProxyResource(upstream_url)
    root = Resource()
    root.putChild(b"openai", proxy)
    root.putChild(b"hello", Data(b"hello\n", "text/plain"))
    # In a plain twisted.web.server.Site it works too, but Twisted then holds every upload until it is whole.
    return ProxySite(root), proxy


def main(upstream_url: str, port: str = "8000") -> None:
    """Serve until a signal comes."""
    site, proxy = make_site(upstream_url)
    listening = reactor.listenTCP(int(port), site, interface="127.0.0.1")

    async def stop() -> None:
        await listening.stopListening()
        await site.drain(25)  # seconds for requests under way
        await proxy.close()

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop()))
    print(f"listening on http://127.0.0.1:{listening.getHost().port}", flush=True)
    reactor.run()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
