"""Targets for event streams and their aggregates."""

from __future__ import annotations

from kits.fuzz.checks import Outcome, failed, outcome, require, same, strict
from kits.fuzz.source import Source
from stream_proxy.aggregate.accumulator import EventAccumulator
from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.merge import Object, lengthens, merge_delta, overlay, settled
from stream_proxy.aggregate.reading.chat_runs import ChatRuns
from stream_proxy.aggregate.reading.response_blocks import ResponseBlocks
from stream_proxy.aggregate.responses import ResponseAccumulator
from stream_proxy.aggregate.sse import EventTooLargeError, ServerSentEvent, SSEDecoder
from stream_proxy.aggregate.stream_errors import chat_stream_error, response_error
from stream_proxy.errors import APIError
from stream_proxy.http.body_kind import BodyKind, sniff
from stream_proxy.lenient_json import decode_json, encode_json

_BOUNDS = (10, 60, 300, 2000, 10**6, 10**6, 10**6, 10**6)


def sse(data: bytes) -> None:
    """The events, stray lines and limits of a stream do not depend on how it is cut."""
    source = Source(data)
    bound = source.pick(_BOUNDS)
    reads = source.reads(source.events() if source.number(2) else None)
    whole = b"".join(reads)
    got = _decoded([whole], bound)
    same("the events depend on how the stream is cut", _decoded(reads, bound), got)


def _decoded(reads: list[bytes], bound: int) -> Outcome:
    decoder = SSEDecoder(max_event_bytes=bound, max_stray_bytes=50)
    events: list[ServerSentEvent] = []
    try:
        for read in reads:
            events += decoder.feed(read)
        events += decoder.feed(b"")
        between = decoder.between_events
        events += decoder.end()
    except EventTooLargeError:
        return events, None, None
    for event in events:
        event.data.decode()
        require(len(event.data) <= bound, "larger than its bound", event)
    require(len(decoder.stray()) <= 50, "more stray lines than the bound")
    return events, decoder.stray(), between


def chat(data: bytes) -> None:
    """The fast path and the general path, in one read and in many, lead to the same response or error."""
    source = Source(data)
    bound = source.pick(_BOUNDS)
    n = 1 + source.number(2)
    clean = bool(source.number(4))
    reads = source.reads(source.events())
    whole = [b"".join(reads)]
    plain = outcome(lambda: _chat(whole, bound, n, clean, fast=False))
    same("depends on how it is cut", outcome(lambda: _chat(reads, bound, n, clean, fast=False)), plain)
    same("the fast path", outcome(lambda: _chat(whole, bound, n, clean, fast=True)), plain)
    same("the fast path, cut", outcome(lambda: _chat(reads, bound, n, clean, fast=True)), plain)


def _chat(reads: list[bytes], bound: int, n: int, clean: bool, *, fast: bool) -> Outcome:
    events = SSEDecoder(max_event_bytes=bound + 65_536)
    accumulator = ChatCompletionsAccumulator(n=n, max_bytes=bound)
    runs = ChatRuns(events, accumulator)
    for read in reads:
        if accumulator.complete:
            break
        if fast:
            runs.feed(read)
        else:
            for event in events.feed(read):
                accumulator.feed(event)
    if fast:
        runs.end()
    return _ended(accumulator, events, clean, bound)


def responses(data: bytes) -> None:
    """A Responses stream has one response or one error, however it is cut and read."""
    source = Source(data)
    bound = source.pick(_BOUNDS)
    clean = bool(source.number(4))
    reads = source.reads(source.events())
    whole = [b"".join(reads)]
    plain = outcome(lambda: _responses(whole, bound, clean, fast=False))
    same("depends on how it is cut", outcome(lambda: _responses(reads, bound, clean, fast=False)), plain)
    same("the fast path", outcome(lambda: _responses(whole, bound, clean, fast=True)), plain)
    same("the fast path, cut", outcome(lambda: _responses(reads, bound, clean, fast=True)), plain)


def _responses(reads: list[bytes], bound: int, clean: bool, *, fast: bool) -> Outcome:
    events, accumulator = SSEDecoder(max_event_bytes=bound + 65_536), ResponseAccumulator(max_bytes=bound)
    blocks = ResponseBlocks(events, accumulator)
    for read in reads:
        if accumulator.complete:
            break
        if fast:
            blocks.feed(read)
        else:
            for event in events.feed(read):
                accumulator.feed(event)
    if fast:
        blocks.end()
    return _ended(accumulator, events, clean, bound)


def _ended(accumulator: EventAccumulator, events: SSEDecoder, clean: bool, bound: int) -> Outcome:
    for event in events.end() if clean else ():
        accumulator.feed(event)
    accumulator.end(events.stray(), clean=clean)
    body = accumulator.result_bytes()
    require(len(body) <= bound, "larger than its bound", body)
    require(isinstance(strict(body), dict), "no object", body)
    accumulator.feed(ServerSentEvent(data=b"{"))  # nothing counts after the end
    accumulator.end(b"{}", clean=False)
    same("not settled", accumulator.result_bytes(), body)
    return (body,)


def merge(data: bytes) -> None:
    """Deltas merge into JSON values, and settling a tree changes nothing in it."""
    source = Source(data)
    tree: Object = {}
    resent: Object = {}
    while source.left > 1:
        delta = decode_json(source.spelled(source.object()))
        merge_delta(tree, delta)
        index = source.number(3)
        text: Object = {"content": "x"}
        call: Object = {"tool_calls": [{"index": index, "function": {"arguments": "x"}}]}
        for more in (text, call):
            before = encode_json(settled(tree))
            if lengthens(tree, more):
                merge_delta(tree, more)
                same("more than one text longer", len(encode_json(settled(tree))), len(before) + 1)
        overlay(resent, decode_json(source.spelled(source.object())))
        once = encode_json(settled(tree))
        same("settling changed it", encode_json(settled(tree)), once)
    strict(encode_json(settled(tree)))
    strict(encode_json(settled(resent)))


def errors(data: bytes) -> None:
    """Anything that an upstream reports as an error becomes an OpenAI error."""
    value = Source(data).value()
    failed(chat_stream_error(value))
    for event in ("failed", "error"):
        error = response_error(value, event=event)
        require(error is not None or event == "failed", "an error event without an error", value)
        if isinstance(error, APIError):
            failed(error)


def sniffing(data: bytes) -> None:
    """A decision about the beginning of a body still holds when more of it has arrived."""
    source = Source(data)
    kind = BodyKind.UNDECIDED
    sofar = b""
    for read in source.reads():
        sofar += read
        now = sniff(sofar, ended=False)
        require(kind in (BodyKind.UNDECIDED, now), "contradicts the final decision", kind, now, sofar)
        kind = now
    final = sniff(sofar, ended=True)
    require(final is not BodyKind.UNDECIDED and kind in (BodyKind.UNDECIDED, final), "undecided", sofar)
