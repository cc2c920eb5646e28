"""The register of calls whose clients left."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.trial.unittest import TestCase

from stream_proxy.waiting.identity import Identity
from stream_proxy.waiting.late_errors import is_lasting
from stream_proxy.waiting.orphans import MOST_OF_ONE, Orphans
from stream_proxy.waiting.recent import KEEP_SECONDS, Recent


@dataclass(eq=False)
class Kept:
    """An orphan that does nothing."""

    identity: Identity
    register: Orphans[Kept]
    free: bool = True
    failed: bool = False

    def end(self) -> None:
        """Leave the register."""
        self.register.remove(self)


def identity(digest: bytes = b"d", credential: bytes | None = b"c", retry: int = 0) -> Identity:
    """Return an identity."""
    return Identity(digest, credential, retry, None)


class OrphansTests(TestCase):
    """Bounds, order, and what others are told."""

    def setUp(self) -> None:
        self.now = 0.0
        self.register: Orphans[Kept] = Orphans(MOST_OF_ONE + 1, 100, lambda: self.now)

    def keep(self, one: Identity) -> Kept:
        """Register an orphan."""
        kept = Kept(one, self.register)
        self.register.add(kept)
        return kept

    def test_oldest(self) -> None:
        """The oldest one that nobody has joined is found, by calls that repeat it only."""
        first, second = self.keep(identity()), self.keep(identity())
        self.assertIs(self.register.find(identity(retry=1)), first)
        first.free = False
        self.assertIs(self.register.find(identity(retry=1)), second)
        second.end()
        self.assertIsNone(self.register.find(identity(retry=1)))
        first.free = True
        self.assertIsNone(self.register.find(identity()))
        self.assertIsNone(self.register.find(identity(b"e", retry=1)))

    def test_bounds(self) -> None:
        """One credential has its share, all have the limit, in number and in bytes; none without one."""
        self.assertFalse(self.register.admits(identity(credential=None), 0))
        self.assertFalse(self.register.admits(identity(), 101))
        for _ in range(MOST_OF_ONE):
            self.assertTrue(self.register.admits(identity(), 100))
            last = self.keep(identity())
        self.assertFalse(self.register.admits(identity(), 0))
        self.assertTrue(self.register.admits(identity(credential=b"other"), 0))
        self.keep(identity(credential=b"other"))
        self.assertFalse(self.register.admits(identity(credential=b"third"), 0))
        last.end()
        self.assertTrue(self.register.admits(identity(), 0))
        self.assertTrue(self.register.grew(100))
        self.assertFalse(self.register.admits(identity(), 1))
        self.assertFalse(self.register.grew(1))

    def test_failed(self) -> None:
        """Where there are too many, one that has failed makes room, unless a retry waits for it."""
        for number in range(MOST_OF_ONE + 1):
            last = self.keep(identity(credential=b"%d" % number))
        last.failed, last.free = True, False
        self.assertFalse(self.register.admits(identity(), 0))
        last.free = True
        self.assertTrue(self.register.admits(identity(), 0))
        self.assertNotIn(last, self.register)

    def test_joined(self) -> None:
        """One that a retry waits for is let go, but not ended, when all are to end."""
        free, joined = self.keep(identity()), self.keep(identity())
        joined.free = False
        self.register.end_all()
        self.assertEqual(
            (free in self.register, joined in self.register, len(self.register)), (False, False, 0)
        )

    def test_announced(self) -> None:
        """Others are told of the first of a digest and of the last."""
        told: list[tuple[bytes, bool]] = []
        self.register.announce = lambda digest, there: told.append((digest, there))
        first, second = self.keep(identity()), self.keep(identity())
        first.end()
        self.assertEqual(told, [(b"d", True)])
        second.end()
        second.end()
        self.assertEqual(told, [(b"d", True), (b"d", False)])
        self.assertEqual(self.register.digests(), [])

    def test_closed(self) -> None:
        """A register that is closed has none and takes none."""
        self.keep(identity())
        self.register.close()
        self.assertEqual(len(self.register), 0)
        self.assertFalse(self.register.admits(identity(), 0))

    def test_expired(self) -> None:
        """What has expired is remembered for its retries, up to a number and for a minute."""
        for number in range(1001):
            self.register.note_expired(identity(b"%d" % number))
        self.assertFalse(self.register.has_expired(identity(b"0", retry=1)))
        self.assertTrue(self.register.has_expired(identity(b"1000", retry=1)))
        self.assertFalse(self.register.has_expired(identity(b"1000")))
        self.now = KEEP_SECONDS
        self.assertFalse(self.register.has_expired(identity(b"1000", retry=1)))


class RecentTests(TestCase):
    """How calls ended, for their retries."""

    def test_kept(self) -> None:
        """A value is found by retries of its call, for a minute."""
        now = 0.0
        errors: Recent[str] = Recent(lambda: now, 256)
        errors.add(identity(), "no")
        self.assertEqual(errors.find(identity(retry=1)), "no")
        self.assertIsNone(errors.find(identity()))
        self.assertIsNone(errors.find(identity(b"e", retry=1)))
        now = KEEP_SECONDS
        self.assertIsNone(errors.find(identity(retry=1)))
        self.assertFalse(errors)

    def test_many(self) -> None:
        """The oldest are forgotten first."""
        errors: Recent[str] = Recent(lambda: 0.0, 256)
        for number in range(257):
            errors.add(identity(b"%d" % number), "no")
        self.assertIsNone(errors.find(identity(b"0", retry=1)))
        self.assertEqual(errors.find(identity(b"1", retry=1)), "no")

    def test_lasting(self) -> None:
        """Only a 4xx that does not pass by itself would come again."""
        lasting = [status for status in (200, 400, 401, 404, 408, 409, 422, 429, 500) if is_lasting(status)]
        self.assertEqual(lasting, [400, 401, 404, 422])
