"""Watch over an answer that is passed on: what its bytes show without decoding its events. Sans-I/O.

An event stream is looked at until the first content, then its events are counted, and its end is searched for
the usage. That is right for what providers send; whatever else comes, it costs little and raises nothing.
"""

from __future__ import annotations

import re

import msgspec

from stream_proxy.observe.kinds import APIKind
from stream_proxy.observe.usage import Usage, chunk_report, usage_of

# What is kept of the end; smaller reads gather before they are joined and the rest is dropped.
_KEPT_BYTES = 4_096
_MOST_PARTS = 16
# Most streams have their usage within this from the end; the rest is searched where it may be further up.
_LAST_BYTES = 1_024
# How much is counted from the first content on. The rest has as many events for its size: counting all would
# take as long as passing it on.
_COUNTED_BYTES = 1_024
# A chat stream's first read of this size has some content, without a search.
_SURE_BYTES = 4_096
_EVENT_END = b"\n\n"
# What of the beginning of content may be in the read before.
_CUT_BYTES = 64

_TEXT = re.compile(
    rb'"(?:content|reasoning_content|reasoning|refusal|text|arguments|name)"[ \t]*+:[ \t]*+"[^"]'
)
#: What content looks like in the bytes of a stream.
CONTENT: dict[APIKind, re.Pattern[bytes]] = {
    "chat": _TEXT,
    "completions": _TEXT,
    "gemini": _TEXT,
    "responses": re.compile(rb'[":]\s*+response\.[a-z_.]{1,60}\.delta["\r\n]'),
    "messages": re.compile(rb'"content_block_delta"'),
}
_MODEL = re.compile(rb'"model(?:Version)?"\s*+:\s*+"([^"\\]{1,128})')
_USAGE = re.compile(rb'"usage(?:Metadata)?"\s*+:\s*+(\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\})')
_ERROR = re.compile(rb'"error"\s*+:\s*+\{')
_ERROR_NAMES = [re.compile(rb'"%b"\s*+:\s*+"?([\w.-]{1,64})' % name) for name in (b"code", b"type")]
# How many usages are looked at, from the end on: streams may have null in most chunks.
_MOST_USAGES = 16


class StreamWatch:
    """Watch over one body.

    :param kind: the API.
    :param streams: it is an event stream; else it is JSON, which has a model and a usage.
    """

    __slots__ = (
        "_content",
        "_counted",
        "_cut",
        "_kind",
        "_parts",
        "_rest",
        "_seen",
        "first",
        "last",
        "model",
        "problem",
        "usage",
    )

    def __init__(self, kind: APIKind, *, streams: bool) -> None:
        self._kind: APIKind = kind
        self._content = CONTENT[kind] if streams else None
        self._cut: bytes | None = b""  # the end of the read before, until what is looked for is found
        self._parts: list[bytes] = []  # the last reads
        # Events from the first content on, in how many bytes, and how many bytes came after these.
        self._seen = self._counted = self._rest = 0
        #: When the first content came, and what came last.
        self.first: float | None = None
        self.last: float | None = None
        #: The model and the usage, which are known at the end.
        self.model: str | None = None
        self.usage: Usage | None = None
        #: The code or the type of the error that the stream ended with.
        self.problem: str | None = None

    @staticmethod
    def knows(kind: APIKind) -> bool:
        """Report whether an API's answers can be watched."""
        return kind in CONTENT

    def feed(self, data: bytes, now: float | None) -> None:
        """Look at the next bytes, which came `now`."""
        size = len(data)
        if size >= _KEPT_BYTES:
            self._parts = [data]
        else:
            self._parts.append(data)
            if len(self._parts) > _MOST_PARTS:
                self._parts = [b"".join(self._parts)[-_KEPT_BYTES:]]
        if self._counted >= _COUNTED_BYTES:
            self._rest += size
            self.last = now
        elif self.first is not None:
            self._count(data, 0)
            self.last = now
        elif self._cut is not None:
            self._look(self._cut + data if self._cut else data, now)

    @property
    def events(self) -> int:
        """About how many events came from the first one with content on."""
        return self._seen + (self._rest * self._seen // self._counted if self._counted else 0)

    def end(self) -> None:
        """Search what is left for model and usage, and for an error."""
        parts, self._parts = self._parts, []
        tail = parts[0] if len(parts) == 1 else b"".join(parts)
        last = tail[-_LAST_BYTES:]
        if self._content is _TEXT and self._has_report(last):
            return
        self.model = self.model or _model_in(last)
        usage = _last_usage(last)
        if len(tail) > len(last) and usage is None and self._kind not in ("chat", "completions"):
            usage = _last_usage(tail[-_KEPT_BYTES:])
        known = self.usage
        if usage is not None and known is not None and usage.input is None:
            usage = msgspec.structs.replace(usage, input=known.input, cached=known.cached)
        self.usage = usage or known
        at = last.rfind(b'"error"')
        error = _ERROR.match(last, at) if at >= 0 else None
        if error is not None:
            self.problem = _error_name(last[error.end() :])

    def _has_report(self, last: bytes) -> bool:
        """Take model and usage of a chat stream that ends with a plain chunk that has them."""
        at = last.rfind(b'"usage":')
        begin = last.rfind(b"data: ", 0, at) if at >= 0 else -1
        end = last.find(b"\n", at)
        if begin < 0 or end < 0:
            return False
        try:
            model, usage = chunk_report(last[begin + 6 : end])
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return False
        if usage is None:
            return False
        self.model, self.usage = model[:128] if model else None, usage
        return True

    def _look(self, begun: bytes, now: float | None) -> None:
        """Look for the first content, with Anthropic for what is before it, and in JSON for the model."""
        if self._content is None:
            self.model = _model_in(begun[:_KEPT_BYTES])
            self._cut = None
            return
        if self._kind == "messages" and self.model is None:
            self.model = _model_in(begun[:_KEPT_BYTES])
            self.usage = _last_usage(begun[:_KEPT_BYTES])
        at = 0
        if len(begun) < _SURE_BYTES or self._content is not _TEXT:
            content = self._content.search(begun)
            if content is None:
                self._cut = begun[-_CUT_BYTES:]
                return
            at = content.start()
        self.first = self.last = now
        self._count(begun, at)
        self._cut = None

    def _count(self, data: bytes, begin: int) -> None:
        size = len(data) - begin
        counted = min(size, _COUNTED_BYTES)
        self._seen += data.count(_EVENT_END, begin, begin + counted)
        self._counted += counted
        self._rest += size - counted


def _model_in(data: bytes) -> str | None:
    found = _MODEL.search(data)
    return found[1].decode("utf-8", "replace") if found is not None else None


def _last_usage(data: bytes) -> Usage | None:
    end = len(data)
    for _ in range(_MOST_USAGES):
        end = data.rfind(b'"usage', 0, end)
        if end < 0:
            break
        found = _USAGE.match(data, end)
        if found is None:
            continue
        try:
            return usage_of(msgspec.json.decode(found[1]))
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            continue
    return None


def _error_name(error: bytes) -> str:
    for name in _ERROR_NAMES:
        found = name.search(error)
        if found is not None and found[1] != b"null":
            return found[1].decode("ascii", "replace")
    return "upstream_error"
