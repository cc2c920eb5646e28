"""Proxy sites with limits, without an upstream."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.ssl import CertificateOptions
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from stream_proxy import ProxySite
from stream_proxy.limits import Limits
from stream_proxy.request_log import RequestLog
from tests.support.loopback import Lines, LoopbackTestCase, reactor
from tests.support.wire import Message


class Ok(Resource):
    """A resource that responds ``ok`` to everything."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        return b"ok"


class LimitsTestCase(LoopbackTestCase):
    """Sites with limits, and their log."""

    def setUp(self) -> None:
        self.log = Lines()

    async def site(
        self,
        resource: IResource | None = None,
        tls: CertificateOptions | None = None,
        clock: Any = reactor,
        **limits: Any,
    ) -> tuple[ProxySite, int]:
        """Start a site; return it and its port."""
        site = ProxySite(
            resource or Ok(), reactor=clock, limits=Limits(**limits), log=RequestLog(observer=self.log)
        )
        port = await self.listen(site, tls)

        async def finish() -> None:
            site.abort()
            if clock is reactor:
                await site.drain(None)

        self.addCleanup(lambda: Deferred.fromCoroutine(finish()))
        return site, port

    def assert_refused(self, response: Message, status: int, key: str) -> None:
        """Fail unless this is an error that mentions `key`, and the end of the connection."""
        self.assertEqual((response.status, response.complete), (status, True))
        error = response.json()["error"]
        self.assertEqual((error["type"], error["param"]), ("invalid_request_error", None))
        self.assertIn(key, error["message"])
        self.assertEqual(response.get("connection"), "close")
