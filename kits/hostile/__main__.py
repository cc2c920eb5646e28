"""Table of what hostile shapes cost.

    python -m kits.hostile [--checkout DIR] [--megabytes N] [--event-megabytes N] [--request-megabytes N]

A real proxy is sent each shape, compressed where an upstream sends it. Printed are the memory at its peak for
each decoded byte, and the CPU time of the longest reactor turn; ``--checkout`` measures another version.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kits.hostile.shapes import EVENTS, REQUESTS, SHAPES, Shape

_ROOT = Path(__file__).resolve().parents[2]
_CALL = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
_HONEST = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n'
_PATHS = {"responses": "/v1/responses"}


class _Upstream(ThreadingHTTPServer):
    """Upstream that answers every request with one body."""

    body = b""
    coding = ""


class _Handler(BaseHTTPRequestHandler):
    server: _Upstream

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if self.server.coding:
            self.send_header("Content-Encoding", self.server.coding)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *args: Any) -> None:
        pass


class Measurement:
    """One proxy process, and an upstream of its own.

    :param checkout: the version to measure.
    """

    def __init__(self, checkout: Path) -> None:
        self._upstream = _Upstream(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self._upstream.serve_forever, daemon=True).start()
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(_ROOT / "kits/hostile/proxy.py"),
                str(checkout),
                f"http://127.0.0.1:{self._upstream.server_port}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=checkout,
        )
        self._ports: list[int] = self._told()

    def __enter__(self) -> Measurement:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._upstream.shutdown()
        self._upstream.server_close()

    def cost(self, shape: Shape, size: int) -> tuple[int, float, float]:
        """Return the status of a response, the memory for each byte, and the longest turn in seconds."""
        data = shape.make(size)
        port = self._ports["adapter" in shape.to or shape.to == "service"]
        self._upstream.body, self._upstream.coding = _HONEST, ""
        self._ask(port, shape, _CALL)  # what is made once is no cost of a shape
        request = _CALL
        if "client" in shape.to:
            request = data
        elif shape.to == "service":
            # An adapter bounds how much may be in little; plain bytes are as hostile to it.
            self._upstream.body = data
        else:
            self._upstream.body, self._upstream.coding = gzip.compress(data, 1), "gzip"
        self._figures()
        before = self._figures()["memory"]
        status = self._ask(port, shape, request)
        figures = self._figures()
        return status, max(figures["peak"] - before, 0) / len(data), figures["turn"]

    def _ask(self, port: int, shape: Shape, body: bytes) -> int:
        connection = HTTPConnection("127.0.0.1", port, timeout=300)
        try:
            path = _PATHS.get(shape.to, "/v1/chat/completions")
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def _figures(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        figures: dict[str, Any] = self._told()
        return figures

    def _told(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def main() -> None:
    """Measure all shapes."""
    parser = argparse.ArgumentParser(prog="python -m kits.hostile", description=__doc__)
    parser.add_argument("--checkout", type=Path, default=_ROOT, metavar="DIR")
    parser.add_argument("--megabytes", type=float, default=3, metavar="N")
    parser.add_argument("--event-megabytes", type=float, default=15.9, metavar="N")
    parser.add_argument("--request-megabytes", type=float, default=100, metavar="N")
    options = parser.parse_args()
    print("| shape | from | status | memory for each byte | longest turn |")
    print("| --- | --- | ---: | ---: | ---: |")
    sizes = [(shape, options.megabytes) for shape in SHAPES]
    sizes += [(shape, options.event_megabytes) for shape in EVENTS]
    sizes += [(shape, options.request_megabytes) for shape in REQUESTS]
    for shape, megabytes in sizes:
        with Measurement(options.checkout.resolve()) as measurement:
            status, memory, turn = measurement.cost(shape, int(megabytes * 2**20))
        print(f"| {shape.name} | {shape.to} | {status} | {memory:.1f} | {1000 * turn:.0f} ms |", flush=True)


if __name__ == "__main__":
    main()
