"""Recorder: counts each request once, when its record ends. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stream_proxy.observe.metrics.cells import Cells, Counter, Histogram
from stream_proxy.observe.metrics.names import Names
from stream_proxy.observe.metrics.reasons import refusal, upstream_error
from stream_proxy.observe.record import Record, Usage

#: How many statuses, and reasons of further attempts, each rule has.
MOST_CODES, _MOST_REASONS = 60, 20
#: How many records are looked at in one turn.
_STEP = 2000
_RULE_COUNTERS = ("calls_without_usage_total", "abandoned_events_total", "kept_alive_answers_total")
_TOKENS = ("input", "output", "cached", "reasoning")


class _RequestCells:
    """The cells of requests that are alike."""

    __slots__ = ("count", "duration")

    def __init__(self, count: Counter, duration: Histogram) -> None:
        self.count = count
        self.duration = duration


class _ModelCells:
    """The cells of one model of a rule."""

    __slots__ = ("first_event", "per_token", "tokens")

    def __init__(self, cells: Cells, rule: str, model: str) -> None:
        self.first_event = cells.histogram("time_to_first_event_seconds", rule, model)
        self.per_token = cells.histogram("time_per_output_token_seconds", rule, model)
        self.tokens = {each: cells.counter("tokens_total", rule, model, each) for each in _TOKENS}

    def count(self, usage: Usage, streamed: float | None) -> None:
        """Count the tokens of an answer, of which all but the first took `streamed` seconds."""
        for kind, count in zip(
            _TOKENS, (usage.input, usage.output, usage.cached, usage.reasoning), strict=True
        ):
            if count is not None and count > 0:
                self.tokens[kind].value += count
        if streamed is not None and usage.output is not None and usage.output > 1:
            self.per_token.observe(streamed / (usage.output - 1))


class _RuleCells:
    """The cells of one rule."""

    def __init__(self, cells: Cells, rule: str, pinned: Iterable[str] | None) -> None:
        self._cells = cells
        self._rule = rule
        self._names = Names(pinned)
        self._codes = Names(most=MOST_CODES)
        self._reasons = Names(most=_MOST_REASONS)
        self._models: dict[str, _ModelCells] = {}
        self.requests: dict[tuple[str, str, int], _RequestCells] = {}
        for family in _RULE_COUNTERS:  # a rate needs a value to begin with
            cells.counter(family, rule)
        self.connect = cells.histogram("upstream_connect_seconds", rule)
        self.before_upstream = cells.histogram("overhead_seconds", rule, "before_upstream")
        self.after_last_byte = cells.histogram("overhead_seconds", rule, "after_last_byte")

    def request(self, kind: str, mode: str, status: int) -> _RequestCells:
        """Return the cells of requests like these, the first time."""
        code = self._codes.label(str(status))
        found = self.requests[kind, mode, status] = _RequestCells(
            self._cells.counter("requests_total", self._rule, kind, mode, code),
            self._cells.histogram("request_duration_seconds", self._rule, kind, mode),
        )
        return found

    def model(self, name: str | None) -> _ModelCells:
        """Return the cells of a model."""
        label = self._names.label(name)
        found = self._models.get(label)
        if found is None:
            found = self._models[label] = _ModelCells(self._cells, self._rule, label)
        return found

    def attempted(self, reasons: Iterable[str]) -> None:
        """Count further attempts."""
        for reason in reasons:
            label = self._reasons.label(reason.replace(" ", "_"))
            self.count("upstream_retries_total", label)

    def count(self, family: str, *labels: str, value: float = 1) -> None:
        """Count what does not happen to every request."""
        self._cells.counter(family, self._rule, *labels).value += value


class Recorder:
    """Cells of a process, filled from the records of its requests.

    :param cells: the cells.
    :param models: the models that have labels of their own; ``None``: the first of each rule.
    """

    def __init__(self, cells: Cells, models: Iterable[str] | None = None) -> None:
        self.cells = cells
        self._pinned = models
        self._rules: dict[str, _RuleCells] = {}
        #: What has been counted of open WebSockets, by the numbers of their records.
        self._messages: dict[int, tuple[int, int]] = {}

    def rule(self, name: str) -> _RuleCells:
        """Return the cells of a rule, whose counters begin at 0."""
        found = self._rules.get(name)
        if found is None:
            found = self._rules[name] = _RuleCells(self.cells, name, self._pinned)
        return found

    def ended(self, record: Record) -> None:
        """Count a request that has ended."""
        rule = self._rules.get(record.rule) or self.rule(record.rule)
        kind, mode, status, began = record.kind, record.mode, record.status, record.began
        cells = rule.requests.get((kind, mode, status)) or rule.request(kind, mode, status)
        ended = record.ended if record.ended is not None else began
        cells.count.value += 1
        cells.duration.observe(ended - began)
        if record.asked is not None:
            start = record.collected if record.collected is not None else began
            rule.before_upstream.observe(record.asked - start)
        if record.connected is not None and record.connecting is not None:
            rule.connect.observe(record.connected - record.connecting)
        if record.attempts:
            rule.attempted(record.attempts)
        if record.kept_alive:
            rule.count("kept_alive_answers_total")
        if mode == "resumed":
            rule.count("resumed_total", "left" if record.left else "joined")
        elif mode == "websocket":
            self._count_messages(record)
            self._messages.pop(record.number, None)
        whole = 200 <= status < 300 and record.code is None and record.problem is None
        if whole and record.last_event is not None and mode == "converted":
            rule.after_last_byte.observe(ended - record.last_event)
        if 200 <= status < 300:
            self._answered(rule, record, whole=whole)
        if not whole:
            self._failed(rule, record)

    def count(self, family: str, rule: str, label: str) -> None:
        """Count what is told when it happens, and not by a record; see :meth:`Ledger.count`."""
        self.rule(rule).count(family, label)

    def pin(self, models: Iterable[str] | None) -> None:
        """Use other labels for models from now on."""
        self._pinned = models
        self._rules.clear()

    def count_open(self, records: Iterable[Record]) -> Iterator[None]:
        """Count the messages of open WebSockets, which may last for days; yield now and then."""
        seen: set[int] = set()
        for number, record in enumerate(list(records), 1):
            if record.mode == "websocket" and record.ended is None:
                record.refresh()
                self._count_messages(record)
                seen.add(record.number)
            if number % _STEP == 0:
                yield
        self._messages = {number: count for number, count in self._messages.items() if number in seen}

    def _count_messages(self, record: Record) -> None:
        """Count the messages that came since the last time."""
        new = (record.messages_up, record.messages_down)
        old = self._messages.get(record.number, (0, 0))
        self._messages[record.number] = new
        rule = self.rule(record.rule)
        for direction, now, before in zip(("up", "down"), new, old, strict=True):
            if now > before:
                rule.count("websocket_messages_total", direction, value=now - before)

    def _answered(self, rule: _RuleCells, record: Record, *, whole: bool) -> None:
        """Count the output of an answer, which may have broken off."""
        first, last, usage = record.first_event, record.last_event, record.usage
        if whole and usage is None and record.method == b"POST" and record.kind != "other":
            rule.count("calls_without_usage_total")
        if first is None and usage is None:
            return
        model = rule.model(record.model)
        if first is not None:
            model.first_event.observe(first - record.began)
        if usage is not None:
            model.count(usage, last - first if first is not None and last is not None else None)

    def _failed(self, rule: _RuleCells, record: Record) -> None:
        if record.left and record.status == 499:
            rule.count("client_disconnects_total", _phase(record))
            if record.kept:
                rule.count("resumed_total", "kept")
            elif record.events:
                rule.count("abandoned_events_total", value=record.events)
            return
        reason = refusal(record)
        if reason is not None:
            rule.count("refused_requests_total", reason)
            return
        reason = upstream_error(record)
        if reason is not None:
            rule.count("upstream_errors_total", reason)


def _phase(record: Record) -> str:
    """Return how far a request was when its client left."""
    if record.head is None:
        return "before_head"
    return "waiting" if record.mode == "converted" or not record.sent else "streaming"
