"""Relay of an upstream's response to the client, with backpressure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IPushProducer
from twisted.web.server import Request
from zope.interface import implementer

from stream_proxy.downstream.response import break_off, is_taking, start_response
from stream_proxy.errors import APIError, client_stalled, upstream_timeout
from stream_proxy.http.headers import RawHeader
from stream_proxy.upstream.response import UpstreamResponse

_NO_LENGTH_STATUS = (204, 304)


@implementer(IPushProducer)
class ResponseRelay:
    """Response on its way to the client, as it comes and as fast as the client reads.

    :param request: the client's request.
    :param response: the upstream's response, whose head is in and whose body may have begun.
    :param touched: called whenever something moves.
    :param ended: called once, with the reason if the body did not come to its end.
    """

    def __init__(
        self,
        request: Request,
        response: UpstreamResponse,
        touched: Callable[[], None],
        ended: Callable[[APIError | None], None],
    ) -> None:
        self._request = request
        self._response = response
        self._touched = touched
        self._ended: Callable[[APIError | None], None] | None = ended
        self.sent = 0
        self.paused = False

    def start(self, headers: Iterable[RawHeader], held: Iterable[bytes] = ()) -> None:
        """Send the head, the held part of the body, and then the rest as it comes.

        :param headers: the fields of the head.
        :param held: the part of the body that was taken already; if there is any, the body flows.
        """
        response = self._response
        fields = list(headers)
        if response.length is not None and response.status not in _NO_LENGTH_STATUS:
            fields = [(name, value) for name, value in fields if name.lower() != b"content-length"]
            if self._request.method == b"HEAD":
                fields += [(b"Content-Length", value) for value in response.values(b"content-length")]
            else:
                fields.append((b"Content-Length", b"%d" % response.length))
        start_response(self._request, response.status, response.reason, fields)
        self._request.registerProducer(self, True)
        self._request.write(b"")  # the head does not wait for the body
        for piece in held:
            self.body_received(piece)
        if response.started:
            response.sink = self
            if response.ended:
                self.body_ended(response.error)
            elif not self.paused:
                response.resume()
        else:
            response.start(self)

    def body_received(self, data: bytes) -> None:
        self._touched()
        self.sent += len(data)
        self._request.write(data)

    def body_ended(self, error: APIError | None) -> None:
        self._end(error)

    def pauseProducing(self) -> None:
        self.paused = True
        self._response.pause()

    def resumeProducing(self) -> None:
        self.paused = False
        self._touched()
        self._response.resume()

    def stopProducing(self) -> None:
        """Do nothing: the flow hears of a lost client from its request."""

    def stop(self, error: APIError | None) -> None:
        """Drop the rest of the response; with an error, let the client see that it is not complete."""
        self._response.abort()
        self._end(error)

    def silent(self, seconds: float) -> None:
        """End, because nothing moved for so long, with the side that kept silent as the reason."""
        if self.paused and is_taking(self._request):
            self._touched()  # the upstream waits for a client that is slow
        elif self.paused:
            self.stop(client_stalled(seconds))
        else:
            self.stop(upstream_timeout(f"The upstream sent nothing for {seconds:g} seconds."))

    def _end(self, error: APIError | None) -> None:
        request = self._request
        if request.channel is not None and not request.finished:
            request.unregisterProducer()
            if error is None:
                request.finish()
            else:
                break_off(request)
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(error)
