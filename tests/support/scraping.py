"""Scrapes of a process with an admin port."""

from __future__ import annotations

from typing import Any

from tests.service.test_reload import ReloadTestCase
from tests.support.metrics import Scraped
from tests.support.traffic import Traffic
from tests.support.twistd import Process, eventually, free_port
from tests.support.wire import Message


class ScrapingTestCase(ReloadTestCase):
    """Starts ``twistd`` with one rule in front of the mock, and an admin port."""

    async def start(self, **config: Any) -> Process:
        """Start it, and wait until it serves."""
        self.port, self.admin = free_port(), free_port()
        self.rule = {"listenPort": self.port, "upstreamUrl": await self.mock()}
        self.config = {"admin": {"listenPort": self.admin}, **config}
        return await self.begin(self.rule, **self.config)

    async def metrics(self, accept: str = "text/plain", method: str = "GET") -> Message:
        """Ask for the metrics."""
        return await self.request(self.admin, method, "/metrics", headers=[("Accept", accept)])

    async def scrape(self) -> Scraped:
        """Return what a scrape has."""
        return Scraped((await self.metrics()).body.decode())

    async def settled(self, *traffic: Traffic) -> Scraped:
        """Wait until all of `traffic` has been counted, and return what a scrape has then."""
        found: list[Scraped] = []
        wanted = sum(sum(each.seen.values()) for each in traffic)

        async def all_counted() -> bool:
            found[:] = [await self.scrape()]
            return found[0].sum("requests_total") >= wanted and not found[0].sum("requests_in_flight")

        await eventually(all_counted)
        return found[0]
