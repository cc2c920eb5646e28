"""treq as a carrier of requests, for the sake of its interface: it must not touch a byte on either side."""

from __future__ import annotations

from collections.abc import Callable
from http.cookiejar import CookieJar
from typing import Any, cast

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer


class _NoCookies(CookieJar):
    """Jar that stays empty: cookies are between each client and the upstream."""

    def add_cookie_header(self, request: object) -> None:
        pass

    def extract_cookies(self, response: object, request: object) -> None:
        pass


class _Anywhere(EncodedURL):
    """URL for treq's argument, which is never used and so need not be parsed or encoded."""

    def to_uri(self) -> _Anywhere:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return "http://upstream/"


_ANYWHERE = _Anywhere.from_text("http://upstream/")


@implementer(IBodyProducer)
class BytesBody:
    """Request body that is in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        if self._data:
            consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


@implementer(IAgent)
class _Verbatim:
    """Agent for one request, which it sends whatever arguments treq gives it."""

    def __init__(self, send: Callable[[], Deferred[IResponse]]) -> None:
        self._send = send

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        return self._send()


_NO_COOKIES = _NoCookies()


def carried(send: Callable[[], Deferred[IResponse]], clock: IReactorTime) -> Deferred[IResponse]:
    """Have treq make the request that `send` makes, and return its response.

    treq would follow redirects, decode bodies, keep cookies and rewrite headers. These arguments turn that
    off, and the agent ignores the request that treq built.
    """
    client = HTTPClient(_Verbatim(send), cookiejar=cast(Any, _NO_COOKIES))
    answer: Any = client.request(
        "GET", _ANYWHERE, allow_redirects=False, unbuffered=True, reactor=cast(Any, clock)
    )
    return cast("Deferred[IResponse]", answer)
