"""Figures of several processes together."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import msgspec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.metrics.exposition import exposition
from stream_proxy.observe.metrics.names import MOST_NAMES
from stream_proxy.observe.metrics.recorder import MOST_CODES
from stream_proxy.observe.record import Usage
from stream_proxy.request_log import RequestLog
from stream_proxy.service.configuration.types import Admin, Config, MetricsConfig, Rule
from stream_proxy.service.listening import Listener, endpoint_of
from stream_proxy.service.metrics.figures import Figures
from stream_proxy.service.metrics.gathering import Gathering, WorkerFigures
from stream_proxy.service.metrics.shipping import SHIP_SECONDS, Shipping
from stream_proxy.service.rules import ProxyService
from stream_proxy.service.workers.messages import decode_record
from tests.support.metrics import Scraped

ADMIN = Admin(listen_port=9)


def config(**keys: Any) -> Config:
    """Return a configuration with one rule and an admin port."""
    rules = keys.pop("rules", [Rule(listen_port=8080, upstream_url="http://x")])
    return Config(**{"admin": ADMIN, "rules": rules, "workers": 2, **keys})


class Worker:
    """A worker's process, without the process.

    :param link: takes what it tells.
    """

    def __init__(self, clock: Clock, link: WorkerFigures, configuration: Config, pid: int = 1) -> None:
        self.link = link
        self.messages = 0
        listeners = {endpoint_of(rule): Listener(endpoint_of(rule), []) for rule in configuration.rules}
        log = RequestLog(observer=cast(Any, lambda _: None))
        self.service = ProxyService(cast(Any, clock), configuration, listeners, log=log)
        self.shipping = Shipping(cast(Any, clock), self.service, self.tell)
        link.started(pid)
        self.shipping.apply(configuration)

    def tell(self, figures: Figures) -> None:
        """Carry figures as the pipe does."""
        record = decode_record(msgspec.json.encode(figures))
        assert isinstance(record, Figures)
        self.messages += 1
        self.link.take(record)

    def serve(self, count: int = 1, **fields: Any) -> None:
        """Have so many requests."""
        for _ in range(count):
            record = self.service.shared.ledger.begin("8080")
            for name, value in {"began": record.began, **fields}.items():
                setattr(record, name, value)
            record.status = fields.get("status", 200)
            self.service.shared.ledger.end(record)

    def die(self, *, replaced: bool = True) -> None:
        """End as a process that is killed."""
        self.shipping._timeout.stop()
        self.shipping._collection.stop()
        self.link.ended(replaced=replaced)


class GatheringTestCase(SynchronousTestCase):
    """Workers and their parent."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.gathering = Gathering(cast(Any, self.clock))
        self.workers: list[Worker] = []

    def begin(self, configuration: Config, count: int = 2) -> None:
        """Start workers."""
        self.gathering.apply(configuration, {})
        for number in range(1, count + 1):
            self.workers.append(
                Worker(self.clock, WorkerFigures(self.gathering, number), configuration, 1000 + number)
            )

    def pass_time(self, seconds: float = SHIP_SECONDS) -> None:
        """Let time go on, in small steps."""
        for _ in range(round(seconds * 100)):
            self.clock.advance(0.01)

    def scrape(self) -> Scraped:
        """Return what a scrape has."""
        list(self.gathering.look())
        return Scraped(b"".join(exposition(self.gathering.series(), open_metrics=False)).decode())


class WorkersTests(GatheringTestCase):
    """Sums over workers."""

    def test_sums(self) -> None:
        """Counters are the sums of what workers counted, a second later at most."""
        self.begin(config())
        self.workers[0].serve(3)
        self.workers[1].serve(4)
        self.pass_time(SHIP_SECONDS + 0.1)
        self.assertEqual(self.scrape().values("requests_total"), [7])
        self.workers[0].serve(5, status=502)
        self.pass_time(SHIP_SECONDS + 0.1)
        self.assertEqual(self.scrape().by("requests_total", "code"), {"200": 7, "502": 5})

    def test_begins_at_zero(self) -> None:
        """What has no other label than the rule is there before the first request, and so are gauges."""
        self.begin(config())
        self.pass_time(0.1)
        found = self.scrape()
        for family in ("calls_without_usage_total", "abandoned_events_total", "kept_alive_answers_total"):
            self.assertEqual(found.values(family, rule="8080"), [0])
        for family in ("requests_in_flight", "oldest_request_seconds", "upstream_waiting"):
            self.assertTrue(found.values(family, rule="8080"))
        self.assertEqual(found.values("config_last_reload_success"), [1])

    def test_death(self) -> None:
        """A worker that dies takes its gauges with it and leaves its counters; its successor adds to them."""
        self.begin(config())
        for worker in self.workers:
            worker.serve(2)
            worker.service.shared.ledger.begin("8080")
        self.pass_time(SHIP_SECONDS + 0.1)
        self.assertEqual(self.scrape().sum("requests_in_flight"), 2)
        lags = self.scrape().sum("reactor_lag_seconds_count", worker="1")
        self.workers[0].die()
        found = self.scrape()
        self.assertEqual((found.sum("requests_in_flight"), found.sum("requests_total")), (1, 4))
        self.assertEqual(found.sum("reactor_lag_seconds_count", worker="1"), lags)
        self.assertEqual(found.values("worker_restarts_total"), [1])
        successor = Worker(self.clock, self.workers[0].link, config(), 1003)
        successor.serve(1)
        self.pass_time(SHIP_SECONDS + 0.1)
        self.assertEqual(self.scrape().values("requests_total"), [5])
        self.assertEqual(set(self.gathering.processes.values()) & {1001, 1002, 1003}, {1002, 1003})

    def test_ends_itself(self) -> None:
        """A worker that ends in an orderly way loses nothing; that is no restart if the service stops."""
        self.begin(config())
        self.pass_time(0.5)
        self.workers[0].serve(9)
        self.workers[0].shipping.stop()
        self.workers[0].link.ended(replaced=False)
        found = self.scrape()
        self.assertEqual((found.values("requests_total"), found.values("worker_restarts_total")), ([9], [0]))

    def test_hangs(self) -> None:
        """The oldest request of a worker that tells nothing more becomes older all the same."""
        self.begin(config())
        self.workers[0].service.shared.ledger.begin("8080")
        self.pass_time(SHIP_SECONDS + 0.1)
        self.workers[0].shipping._timeout.stop()
        self.clock.advance(100)
        (age,) = self.scrape().values("oldest_request_seconds")
        self.assertGreater(age, 100)

    def test_models(self) -> None:
        """All workers together have no more models than one."""
        self.begin(config())
        for first, worker in enumerate(self.workers):
            for number in range(MOST_NAMES):
                model = f"{first}-{number}"
                worker.serve(1, model=model, usage=Usage(output=1))
        self.pass_time(SHIP_SECONDS + 1)
        found = self.scrape().by("tokens_total", "model")
        self.assertEqual((len(found), sum(found.values())), (MOST_NAMES + 1, 2 * MOST_NAMES))

    def test_codes(self) -> None:
        """All workers together, and those after them, have no more statuses than one."""
        self.begin(config())
        for first, worker in enumerate(self.workers):
            for status in range(MOST_CODES):
                worker.serve(1, status=200 + first * MOST_CODES + status)
        self.pass_time(SHIP_SECONDS + 1)
        found = self.scrape().by("requests_total", "code")
        self.assertEqual((len(found), sum(found.values())), (MOST_CODES + 1, 2 * MOST_CODES))

    def test_many_cells(self) -> None:
        """A worker with much to tell tells it in several messages, with time between them."""
        self.begin(config(), 1)
        for status in range(200, 260):
            for mode in ("passed", "converted", "adapted"):
                self.workers[0].serve(1, status=status, mode=mode)
        told = [self.workers[0].messages]
        for _ in range(120):
            self.clock.advance(0.01)
            told.append(self.workers[0].messages)
        steps = [after - before for before, after in pairwise(told)]
        self.assertEqual((max(steps), sum(steps)), (2, 3))  # gauges with the first cells, then the others
        self.assertEqual(self.scrape().sum("requests_total"), 180)


class ReloadTests(GatheringTestCase):
    """Reloads."""

    def test_no_admin_port(self) -> None:
        """Without an admin port nothing is collected, told or timed; a reload may add and remove it."""
        without = config(admin=None)
        self.begin(without)
        self.workers[0].serve(3)
        self.pass_time(2)
        self.assertEqual((self.workers[0].messages, self.clock.getDelayedCalls()), (0, []))
        self.gathering.apply(config(), {})
        self.workers[0].shipping.apply(config())
        self.workers[0].serve(2)
        self.pass_time(SHIP_SECONDS + 0.1)
        self.assertEqual(self.scrape().sum("requests_total"), 2)
        self.gathering.apply(without, {})
        self.workers[0].serve(1)
        self.workers[0].shipping.apply(without)
        self.workers[0].serve(1)
        self.pass_time(2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        ledger = self.workers[0].service.shared.ledger
        self.assertEqual((ledger.ended_hooks, ledger.count_hooks), ([], []))

    def test_websocket(self) -> None:
        """The messages of a session are counted once, also if the admin port went and came meanwhile."""
        self.begin(config(), 1)
        worker = self.workers[0]
        record = worker.service.shared.ledger.begin("8080")
        record.mode, record.messages_up = "websocket", 5
        self.pass_time(SHIP_SECONDS + 0.1)
        for configuration in (config(admin=None), config(metrics=MetricsConfig(models=("a",)))):
            worker.shipping.apply(configuration)
            self.pass_time(SHIP_SECONDS + 0.1)
        record.messages_up, record.status = 7, 101
        worker.service.shared.ledger.end(record)
        self.pass_time(SHIP_SECONDS + 0.1)
        self.assertEqual(self.scrape().by("websocket_messages_total", "direction"), {"up": 7})

    def test_bug(self) -> None:
        """What goes wrong in counting is logged, and the request ends as it would."""
        self.begin(config(), 1)
        worker, bugs = self.workers[0], list[Any]()
        self.patch(worker.service.shared.log, "bug", bugs.append)
        worker.serve(1, usage="no usage", first_event=1.0)
        worker.serve(1)
        self.pass_time(SHIP_SECONDS + 0.1)
        self.assertEqual((len(bugs), len(worker.service.shared.ledger.recent)), (1, 2))
        self.assertEqual(self.scrape().sum("upstream_connect_seconds_count"), 0)

    def test_rules(self) -> None:
        """A rule that is added has its figures at once."""
        self.begin(config())
        more = config(rules=[*config().rules, Rule(listen_port=1, upstream_url="http://y", name="new")])
        self.gathering.apply(more, {"new": 2e9})
        found = self.scrape()
        self.assertEqual(found.values("abandoned_events_total", rule="new"), [0])
        self.assertEqual(found.by("certificate_not_after_seconds", "rule"), {"new": 2e9})

    def test_pinned(self) -> None:
        """Models may be pinned by a reload."""
        pinned = config(metrics=MetricsConfig(models=("b",)))
        self.begin(config())
        usage = Usage(output=1)
        for configuration in (config(), pinned):
            self.gathering.apply(configuration, {})
            for worker in self.workers:
                worker.shipping.apply(configuration)
            self.workers[0].serve(1, model="a", usage=usage)
            self.pass_time(SHIP_SECONDS + 0.1)
        self.assertEqual(self.scrape().by("tokens_total", "model"), {"a": 1, "other": 1})

    def test_counted(self) -> None:
        """Reloads are counted, and the last one's success is known."""
        for succeeded in (True, False):
            self.gathering.reloaded(succeeded=succeeded)
            self.assertEqual(self.scrape().values("config_last_reload_success"), [float(succeeded)])
        self.assertEqual(self.scrape().values("config_reloads_total"), [2])


class LagTests(GatheringTestCase):
    """The lag of the reactor."""

    def test_late(self) -> None:
        """A timer that comes late is counted as late."""
        self.gathering.apply(config(), {})
        self.clock.advance(0.5)
        self.clock.advance(0.75)
        self.gathering.stop()
        found = self.scrape()
        self.assertEqual(found.values("reactor_lag_seconds_bucket", le="0.128", worker="main"), [1])
        self.assertEqual(found.values("reactor_lag_seconds_bucket", le="0.256", worker="main"), [2])
        self.assertEqual(self.clock.getDelayedCalls(), [])
