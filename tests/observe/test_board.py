"""Tests of what viewers of the admin port are sent."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.board import MOST_ENDED, Board
from stream_proxy.observe.ledger import RECENT


def batch(board: Board) -> dict[str, Any]:
    """Return the next batch without what every batch has."""
    data = board.batch(1.0)
    decoded = {} if data is None else json.loads(data)
    return {key: value for key, value in decoded.items() if key not in ("time", "state", "flight")}


class BatchTests(SynchronousTestCase):
    """What has changed."""

    def test_rows(self) -> None:
        """A row is sent whole when it appears, then what of it changed, and its end."""
        board = Board()
        board.put("1", {"began": 1.0, "events": 0, "model": None})
        self.assertEqual(batch(board), {"upsert": [{"id": "1", "began": 1.0, "events": 0}]})
        self.assertEqual(batch(board), {})
        board.put("1", {"began": 1.0, "events": 3, "model": "m"})
        board.put("1", {"began": 1.0, "events": 4, "model": "m"})
        self.assertEqual(batch(board), {"upsert": [{"id": "1", "events": 4, "model": "m"}]})
        board.put("1", {"model": None})
        board.drop("1")
        board.end({"id": "1", "ended": 2.0})
        self.assertEqual(batch(board), {"remove": ["1"], "ended": [{"id": "1", "ended": 2.0}]})
        self.assertEqual(batch(board), {})

    def test_between_batches(self) -> None:
        """What came and went between two batches is only told as ended."""
        board = Board()
        board.put("1", {"began": 1.0})
        board.drop("1")
        board.end({"id": "1", "ended": 2.0})
        self.assertEqual(batch(board), {"ended": [{"id": "1", "ended": 2.0}]})

    def test_state(self) -> None:
        """The number under way and the state of the service are told when they change."""
        board = Board()
        board.count("a", 2)
        board.count("b", 3)
        data = board.batch(1.0)
        self.assertEqual(data and json.loads(data)["flight"], 5)
        self.assertIsNone(board.batch(1.0))
        board.count("b", None)
        board.state = {"status": "draining"}
        data = board.batch(1.0)
        self.assertEqual(data and json.loads(data), {"time": 1.0, "flight": 2, "state": board.state})

    def test_bounds(self) -> None:
        """Of many requests the oldest and the newest are sent, and the last that ended."""
        board = Board(most_live=4)
        for number in range(8):
            board.put(str(number), {"began": float(number)})
        self.assertEqual([row["id"] for row in batch(board)["upsert"]], ["0", "1", "6", "7"])
        board.drop("0")
        board.put("2", {"began": 2.0, "events": 1})
        board.put("8", {"began": 8.0})
        sent = batch(board)
        self.assertEqual(sorted(sent["remove"]), ["0", "6"])
        self.assertEqual(sent["upsert"], [{"id": "2", "began": 2.0, "events": 1}, {"id": "8", "began": 8.0}])
        for number in range(RECENT + 1):
            board.end({"id": str(number), "ended": float(number)})
        self.assertEqual([row["ended"] for row in batch(board)["ended"]], list(range(401, 501)))
        self.assertEqual(len(batch(board).get("ended", [])), 0)
        self.assertEqual(MOST_ENDED, 100)
        self.assertEqual(len(json.loads(board.snapshot(1.0))["recent"]), RECENT)


class SnapshotTests(SynchronousTestCase):
    """What somebody who comes is sent."""

    def test_after_batch(self) -> None:
        """It has everything that batches have told until now."""
        board = Board()
        board.put("1", {"began": 1.0, "events": 0})
        board.count("", 1)
        board.end({"id": "0", "ended": 0.5})
        board.figures("", [(7, 1, 0, 0, 0, {3: 1})])
        batch(board)
        board.put("1", {"events": 5})
        batch(board)
        self.assertEqual(
            json.loads(board.snapshot(2.0)),
            {
                "time": 2.0,
                "flight": 1,
                "state": None,
                "live": [{"id": "1", "began": 1.0, "events": 5}],
                "recent": [{"id": "0", "ended": 0.5}],
                "figures": [[7, 1, 0, 0, 0, {"3": 1}]],
            },
        )

    def test_merged(self) -> None:
        """What several processes ended stands in the order of time, each once, and is bounded."""
        board = Board()
        board.merge([{"id": "1-1", "ended": 1.0}, {"id": "1-2", "ended": 3.0}])
        self.assertTrue(board.renewed)
        board.merge([{"id": "2-1", "ended": 2.0}])
        board.renewed = False
        board.merge([{"id": "1-1", "ended": 1.0}])
        self.assertFalse(board.renewed)
        self.assertEqual([row["id"] for row in board.recent], ["1-1", "2-1", "1-2"])
        board.merge([{"id": f"3-{n}", "ended": 2.0 + n} for n in range(RECENT)])
        self.assertEqual((len(board.recent), board.recent[-1]["id"]), (RECENT, f"3-{RECENT - 1}"))
