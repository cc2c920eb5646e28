"""Route of the metrics on the admin port."""

from __future__ import annotations

from twisted.python.failure import Failure

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import internal_error, proxy_error
from stream_proxy.request_log import RequestLog
from stream_proxy.service.admin.access import Guard
from stream_proxy.service.admin.router import AdminResource, Visit
from stream_proxy.service.metrics.gathering import Gathering
from stream_proxy.service.metrics.scrapes import Scrapes
from stream_proxy.transport.reactor import IReactor


class MetricsRoute:
    """``/metrics``.

    :param gathering: has the figures.
    :param log: logs bugs.
    """

    def __init__(self, reactor: IReactor, gathering: Gathering, log: RequestLog) -> None:
        self._scrapes = Scrapes(reactor, gathering)
        self._log = log

    def serve(self, resource: AdminResource, *, open_to_all: bool) -> None:
        """Serve it, to those who have no key as well, from now on."""
        resource.get("/metrics", self._answer, Guard.PLACE if open_to_all else Guard.KEY)

    def _answer(self, visit: Visit) -> None:
        accept = b",".join(value for name, value in visit.headers if name.lower() == b"accept")

        def ended(content_type: bytes, text: bytes | Failure) -> None:
            if isinstance(text, Failure):
                self._log.bug(text)
                visit.fail(internal_error())
            else:
                visit.send(text, content_type)

        stop = self._scrapes.begin(accept.decode("latin-1"), ended)
        if stop is None:
            visit.fail(proxy_error(ErrorCode.SERVER_IS_OVERLOADED, "Two others scrape right now."))
        else:
            visit.gone = stop
