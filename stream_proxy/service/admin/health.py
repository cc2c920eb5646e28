"""Health checks for load balancers and orchestrators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from stream_proxy.service.admin.access import Guard
from stream_proxy.service.admin.router import AdminResource, Visit

Status = Literal["starting", "ready", "draining"]


def serve_health(resource: AdminResource, status: Callable[[], Status]) -> None:
    """Serve ``/healthz``: the process runs; and ``/readyz``: it takes requests, else 503.

    :param status: returns the state of the process.
    """

    def ready(visit: Visit) -> None:
        now = status()
        visit.json({"status": now}, 200 if now == "ready" else 503)

    resource.get("/healthz", lambda visit: visit.json({"status": "ok"}), Guard.OPEN)
    resource.get("/readyz", ready, Guard.OPEN)
