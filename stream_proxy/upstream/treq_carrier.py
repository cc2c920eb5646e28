"""treq as a courier: it carries a request, and changes nothing on the way."""

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
    """A jar that takes nothing and gives nothing: cookies are between each client and the upstream."""

    def add_cookie_header(self, request: Any) -> None:
        pass

    def extract_cookies(self, response: Any, request: Any) -> None:
        pass


class _Anywhere(EncodedURL):
    """The URL that treq is given. It goes nowhere, so that nothing has to be parsed or encoded."""

    def to_uri(self) -> _Anywhere:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return "http://upstream/"


_ANYWHERE = _Anywhere.from_text("http://upstream/")


@implementer(IBodyProducer)
class BytesBody:
    """A request body that is at hand."""

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
    """The agent that treq is given for one request: it sends that request, whatever treq made of it."""

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
    """Have treq make the request that `send` makes.

    treq would follow, decode, remember and rewrite; with these arguments, and an agent that ignores what treq
    made of the request, nothing of that touches the bytes on either side.
    """
    client = HTTPClient(_Verbatim(send), cookiejar=cast(Any, _NO_COOKIES))
    answer: Any = client.request(
        "GET", _ANYWHERE, allow_redirects=False, unbuffered=True, reactor=cast(Any, clock)
    )
    return cast("Deferred[IResponse]", answer)
