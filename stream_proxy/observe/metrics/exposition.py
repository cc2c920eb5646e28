"""Exposition: the text of a scrape, made by prometheus_client in slices. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.registry import Collector

from stream_proxy.observe.metrics.cells import Counter, Histogram, Labels
from stream_proxy.observe.metrics.families import Family
from stream_proxy.observe.metrics.series import Series, Value

TEXT = b"text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"

#: How many label sets, and how many lines, are made at once: some 1 ms of CPU.
SLICE_LABEL_SETS, SLICE_LINES = 20, 100

_EOF = b"# EOF\n"


def exposition(series: Iterable[Series], *, open_metrics: bool) -> Iterator[bytes]:
    """Yield the text of a scrape, slice by slice; other work may be done between two."""
    generate: Callable[[Collector], bytes] = generate_open_metrics if open_metrics else generate_latest
    for metrics, goes_on in _slices(series):
        text = generate(_Slice(metrics)).removesuffix(_EOF)
        yield _without_head(text) if goes_on else text
    if open_metrics:
        yield _EOF


def accepts_open_metrics(accept: str) -> bool:
    """Report whether an ``Accept`` field prefers OpenMetrics 1.0 to the older text (RFC 9110, 12.5.1)."""
    best = {"open": 0.0, "text": 0.0}
    for each in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        named = dict(part.split("=", 1) for part in parameters if "=" in part)
        weight = _weight(named.get("q", "1"))
        if kind == "application/openmetrics-text":
            if named.get("version", "1.0.0").strip('"') == "1.0.0":
                best["open"] = max(best["open"], weight)
        elif kind in ("text/plain", "text/*"):
            best["text"] = max(best["text"], weight)
    return best["open"] > 0 and best["open"] >= best["text"]


def _weight(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


class _Slice(Collector):
    """A part of what is scraped, as prometheus_client takes it."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _slices(series: Iterable[Series]) -> Iterator[tuple[list[Metric], bool]]:
    """Yield slices, and whether each begins within the family that the one before ended with."""
    metrics: list[Metric] = []
    label_sets = lines = 0
    goes_on = False
    for family, samples in series:
        most = min(SLICE_LABEL_SETS, max(1, SLICE_LINES // (len(family.bounds) + 3 if family.bounds else 1)))
        cost = SLICE_LINES // most
        start = 0
        while start < len(samples):
            room = min(SLICE_LABEL_SETS - label_sets, (SLICE_LINES - lines) // cost)
            if room <= 0:
                yield metrics, goes_on
                metrics, label_sets, lines, goes_on = [], 0, 0, start > 0
                continue
            part = samples[start : start + room]
            metrics.append(_metric(family, part))
            start += len(part)
            label_sets += len(part)
            lines += len(part) * cost
    if metrics:
        yield metrics, goes_on


def _metric(family: Family, samples: Iterable[tuple[Labels, Value]]) -> Metric:
    if family.kind == "histogram":
        histograms = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for labels, cell in samples:
            assert isinstance(cell, Histogram)
            histograms.add_metric(labels, _buckets(cell), cell.total)
        return histograms
    if family.kind == "counter":
        counters = CounterMetricFamily(family.name, family.help, labels=family.labels)
        for labels, cell in samples:
            counters.add_metric(labels, _value(cell))
        return counters
    gauges = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for labels, cell in samples:
        gauges.add_metric(labels, _value(cell))
    return gauges


def _value(cell: Value) -> float:
    assert not isinstance(cell, Histogram)
    return cell.value if isinstance(cell, Counter) else cell


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return the buckets as they are exposed: each with all values up to its bound."""
    found: list[tuple[str, float]] = []
    count = 0
    for bound, own in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        count += own
        found.append(("+Inf" if bound == float("inf") else str(bound), count))
    return found


def _without_head(text: bytes) -> bytes:
    """Return the text of a slice without the lines about its first family, which the slice before had."""
    while text.startswith(b"# "):
        text = text[text.index(b"\n") + 1 :]
    return text
