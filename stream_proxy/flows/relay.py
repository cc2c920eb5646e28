"""Relay of one request and its response, each as it comes, with backpressure."""

from __future__ import annotations

from collections.abc import Iterable

from stream_proxy.downstream.request_body import RequestBody
from stream_proxy.errors import APIError, upload_stalled, upstream_unanswered
from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.relaying_call import RelayingCall
from stream_proxy.http.headers import RawHeader
from stream_proxy.upstream.response import UpstreamResponse
from stream_proxy.upstream.upload import Outgoing


class Relay(RelayingCall):
    """One request that passes through.

    :param exchange: the request.
    :param target: its target in origin form.
    :param headers: the fields that go upstream.
    :param body: the body if it is at hand, or as it comes in; ``None`` for none.
    """

    def __init__(
        self,
        exchange: Exchange,
        target: bytes,
        headers: Iterable[RawHeader],
        body: Outgoing | None,
    ) -> None:
        super().__init__(exchange)
        self._target = target
        self._headers = headers
        self._body = body
        self._upload = body if isinstance(body, RequestBody) else None

    def begin(self) -> None:
        if self._upload is not None:
            self._upload.touched = self.touch
        body, self._body = self._body, None  # held by the request upstream as long as that may be sent again
        self.ask(self.request.method, self._target, self._headers, body)

    def responded(self, response: UpstreamResponse) -> None:
        self.relay(response, response.headers)

    @property
    def silence(self) -> APIError:
        seconds = self.limits.timeout_seconds
        if self._upload is not None and not self._upload.ended:
            return upload_stalled(seconds)
        return upstream_unanswered(seconds)

    def release(self) -> None:
        super().release()
        upload, self._upload = self._upload, None
        if upload is None:
            return
        upload.touched = None
        if not upload.ended:
            upload.stopProducing()
            if self.response is not None:
                # Whole or not: the upstream still waits for the rest of the upload.
                self.response.hang_up()
