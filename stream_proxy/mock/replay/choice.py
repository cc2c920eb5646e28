"""Choice of the recorded exchange that answers a request. Sans-I/O."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from stream_proxy.mock.replay.recording import RecordedAnswer, RecordedExchange
from stream_proxy.observe.capture.members import MemberBlanker

_STREAM = ("stream", "stream_options")
_MOST_NAMED = 20


class Choice:
    """Recorded exchanges, each to be served again.

    An exchange with the same method, path and body is chosen; else one with the same method and path. Of
    several the one that was served least often is, in the order of the recording.
    """

    def __init__(self, exchanges: Sequence[RecordedExchange]) -> None:
        self._known = [(each, *_meaning(each.body)) for each in exchanges]
        self._served: Counter[int] = Counter()

    def find(self, method: str, target: str, body: bytes) -> RecordedExchange | None:
        """Return the exchange that answers a request, ``None`` if nothing was recorded for its path."""
        path = target.partition("?")[0]
        asked, ordinary = _meaning(body)
        best: tuple[int, int, int] | None = None
        for place, (each, known, known_ordinary) in enumerate(self._known):
            if (each.method, each.path) != (method, path):
                continue
            distance = 0 if known == asked else 1 if known_ordinary == ordinary else 2
            # Bodies count for more than queries: those of a capture have no keys.
            rank = (2 * distance + (each.target != target), self._served[place], place)
            if best is None or rank < best:
                best = rank
        if best is None:
            return None
        self._served[best[2]] += 1
        return self._known[best[2]][0]

    def listing(self) -> str:
        """Return what was recorded, in a line."""
        counts = Counter(f"{each.method} {each.path}" for each, _, _ in self._known)
        named = [f"{name} ({count})" for name, count in counts.most_common(_MOST_NAMED)]
        more = len(counts) - len(named)
        return ", ".join(named) + (f", and {more} more" if more > 0 else "")


def answer_for(exchange: RecordedExchange, body: bytes) -> RecordedAnswer | None:
    """Return the response to serve: to whoever asks for a stream the one behind a converted call."""
    answer, stream = exchange.answer, exchange.stream
    if stream is not None and (answer is None or (not answer.is_stream and _wants_stream(body))):
        return stream
    return answer


def _wants_stream(body: bytes) -> bool:
    value = _json(body)
    return isinstance(value, dict) and value.get("stream") is True


def _meaning(body: bytes) -> tuple[object, object]:
    """Return a form of a body that equal ones have in common, and one without what asks for a stream.

    A capture has no secrets, so those of a request do not count either.
    """
    value = _json(body)
    if value is None:
        return body, body
    whole = json.dumps(value, sort_keys=True)
    if not isinstance(value, dict):
        return whole, whole
    return whole, json.dumps(_without(value, _STREAM), sort_keys=True)


def _without(value: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: member for name, member in value.items() if name not in names}


def _json(body: bytes) -> Any:
    blanker = MemberBlanker()
    try:
        return json.loads(blanker.feed(body) + blanker.end())
    except (ValueError, RecursionError):
        return None
