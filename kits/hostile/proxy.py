"""Proxy process that watches itself: the CPU time of its longest reactor turn, and its memory.

    python -m kits.hostile.proxy CHECKOUT UPSTREAM_URL

It prints its two ports, of a proxy and an adapter, and on each line that it reads the figures since the last.
"""

from __future__ import annotations

import gc
import json
import re
import sys
import time
from pathlib import Path
from typing import Any


def _memory(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def main(checkout: str, upstream: str) -> None:
    """Run until standard input ends."""
    sys.path.insert(0, checkout)
    from twisted.internet import reactor as installed
    from twisted.internet.protocol import Protocol
    from twisted.internet.stdio import StandardIO

    from stream_proxy import ProxyResource, ProxySite
    from stream_proxy.adapter.config import AdapterConfig
    from stream_proxy.adapter.resource import AdapterResource

    reactor: Any = installed
    longest = began = 0.0
    run, poll = reactor.runUntilCurrent, reactor.doIteration

    def run_until_current() -> None:
        nonlocal began
        began = time.thread_time()
        run()

    def do_iteration(delay: float | None) -> None:
        nonlocal longest
        poll(delay)
        longest = max(longest, time.thread_time() - began)

    reactor.runUntilCurrent, reactor.doIteration = run_until_current, do_iteration
    resources = (ProxyResource(upstream), AdapterResource(upstream, AdapterConfig(models=("m",))))
    ports = [reactor.listenTCP(0, ProxySite(each), interface="127.0.0.1") for each in resources]

    class Control(Protocol):
        def dataReceived(self, data: bytes) -> None:
            nonlocal longest, began
            told = {"turn": longest, "peak": _memory("VmHWM"), "memory": _memory("VmRSS")}
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak
            longest, began = 0.0, time.thread_time()
            print(json.dumps(told), flush=True)

        def connectionLost(self, reason: Any = None) -> None:
            reactor.stop()

    StandardIO(Control())
    gc.collect()
    gc.freeze()  # as the service does
    print(json.dumps([port.getHost().port for port in ports]), flush=True)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
