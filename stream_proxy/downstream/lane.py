"""Lane for plain requests: a head that is whole and plain needs no reading line by line."""

from __future__ import annotations

from stream_proxy.downstream.plain_request import PlainRequest
from stream_proxy.downstream.strict_channel import StrictChannel
from stream_proxy.http.plain_head import plain_head


def take_plain(channel: StrictChannel, data: bytes) -> bool:
    """Take the request that `data` begins with, if it is plain; return whether it was taken.

    The channel has just been opened, or has answered all that came before, and nothing has come since.
    Afterwards it is in the state in which reading line by line would have left it.
    """
    limits = channel.site.limits
    head = plain_head(data, limits.max_header_bytes, limits.max_header_count)
    if head is None:
        return False
    channel.used = True
    channel.resetTimeout()
    request = PlainRequest(channel, head)
    channel.requests.append(request)
    request.take_resource(channel.site.getResourceFor(request), head.length or 0)
    rest = data[head.size :]
    channel._busyReceiving = True  # a request behind this one has to wait for its turn
    try:
        if head.length:
            _render_early(channel, request, head.length, rest)
        else:
            _render_whole(channel, request, rest)
    finally:
        channel._busyReceiving = False
    return True


def _render_whole(channel: StrictChannel, request: PlainRequest, rest: bytes) -> None:
    """Render a request without a body; `rest` belongs to the next one."""
    if rest:
        channel.hold(rest)
    channel.suspend_timeout()
    channel._handlingRequest = True
    channel.setRawMode()
    request.requestReceived(request.method, request.uri, request.clientproto)


def _render_early(channel: StrictChannel, request: PlainRequest, length: int, rest: bytes) -> None:
    """Render a request before its body, which begins with `rest`, if its resource wants that."""
    channel._command, channel._path, channel._version = request.method, request.uri, request.clientproto
    channel._maybeChooseTransferDecoder(b"Content-Length", b"%d" % length)
    if request.body is not None:
        channel.suspend_timeout()  # whoever reads an upload limits its time
    channel.setRawMode()
    if request.body is None or len(rest) < length:
        request.headReceived()
        if rest:
            channel.rawDataReceived(rest)
    else:
        request.body.arrive(rest[:length])
        request.headReceived()
        if not channel.is_closing:
            channel._finishRequestBody(rest[length:])
