"""Bytes for a client that waits long: JSON may begin with blanks (RFC 8259 section 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.web.server import Request
from zope.interface import implementer

from stream_proxy.downstream import start_answer
from stream_proxy.headers import RawHeader


@implementer(IPushProducer)
class KeepAlive:
    """An answer that begins before it is known, with a blank every few seconds.

    :param request: the client's.
    :param seconds: how often; 0 for never, and then it does nothing.
    :param head: status and fields, asked for once, when the answer begins.
    """

    def __init__(
        self,
        clock: IReactorTime,
        request: Request,
        seconds: float,
        head: Callable[[], tuple[int, Iterable[RawHeader]]],
    ) -> None:
        #: The head is out: what follows has to be JSON, whatever it says.
        self.begun = False
        #: Bytes of the body.
        self.sent = 0
        self._clock = clock
        self._request = request
        self._seconds = seconds
        self._head = head
        self._paused = False
        self._call: IDelayedCall | None = clock.callLater(seconds, self._beat) if seconds else None

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False

    def stopProducing(self) -> None:
        """The client's connection is going; whoever watches the request ends this."""

    def _beat(self) -> None:
        request = self._request
        if not self.begun:
            self.begun = True
            status, fields = self._head()
            start_answer(request, status, None, [*fields, (b"Content-Type", b"application/json")])
            request.registerProducer(self, True)
        if not self._paused:  # who does not read gets no more of them
            request.write(b" ")
            self.sent += 1
        self._call = self._clock.callLater(self._seconds, self._beat)

    def stop(self) -> None:
        """No more blanks."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def finish(self, body: bytes) -> None:
        """End an answer that has begun."""
        self.stop()
        if self._request.channel is not None:
            self._request.unregisterProducer()
            self._request.write(body)
            self._request.finish()
        self.sent += len(body)
