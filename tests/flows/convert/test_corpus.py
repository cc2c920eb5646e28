"""Streams of many providers, and the answers that these give without a stream."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.corpus import HERE, Entry, differences, entries, replayed
from tests.corpus.page import PAGE, page
from tests.support.conversion import ConversionTestCase, stream_body
from tests.support.properties import examples
from tests.support.wire import Stream, event_stream_head

ENTRIES = entries()
FILES = {"expected.json", "note.json", "request.json", "stream.sse"}
LARGEST = 3_200
#: Entries that go through sockets, each for another way to end.
SENT = (
    "azure-asynchronous-filter",
    "codex-empty-output",
    "openai-responses-failed",
    "openai-two-choices",
    "openrouter-reasoning-details",
    "tgi-no-done",
)


@st.composite
def split_streams(draw: st.DrawFn) -> tuple[Entry, list[bytes]]:
    """Generate an entry, and its stream in pieces."""
    entry = draw(st.sampled_from(ENTRIES))
    stream = entry.stream
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return entry, [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


class ReplayTests(SynchronousTestCase):
    """Each stream makes the one answer that its provider gives."""

    def check(self, entry: Entry, reads: list[bytes]) -> None:
        """Fail unless the stream, coming in `reads`, makes the expected answer."""
        self.assertEqual(differences(entry, *replayed(entry, reads)), [])

    def test_whole(self) -> None:
        """A stream in one piece makes the expected answer."""
        wrong = [found for entry in ENTRIES for found in differences(entry, *replayed(entry, [entry.stream]))]
        self.assertEqual(wrong, [])

    def test_bytes(self) -> None:
        """So does one that comes byte by byte."""
        for entry in ENTRIES:
            self.check(entry, [bytes([byte]) for byte in entry.stream])

    @examples(200)
    @given(split_streams())
    def test_splits(self, split: tuple[Entry, list[bytes]]) -> None:
        """So does one that is cut anywhere."""
        self.check(*split)

    @examples(200)
    @given(st.sampled_from(ENTRIES), st.data())
    def test_broken(self, entry: Entry, data: st.DataObject) -> None:
        """A stream that breaks off makes the same answer, or an error; never a part of the answer."""
        end = data.draw(st.integers(0, len(entry.stream)))
        status, body = replayed(entry, [entry.stream[:end]], cut=True)
        if status == 200:
            self.assertEqual(differences(entry, status, body), [])


class SocketTests(ConversionTestCase):
    """Some of the streams through a real proxy."""

    async def test_sent(self) -> None:
        """The client gets the expected answer, whether the stream comes whole or in small pieces."""
        for entry in ENTRIES:
            if entry.name not in SENT:
                continue
            for size in (len(entry.stream), 7):

                def responder(stream: Stream, data: bytes = entry.stream, size: int = size) -> None:
                    if size == len(data):
                        stream_body(stream, data)
                        return
                    stream.write(event_stream_head())
                    for at in range(0, len(data), size):
                        stream.chunk(data[at : at + size])
                    stream.chunk(b"")

                response = await self.asked(responder, target=entry.target, body=json.loads(entry.request))
                self.assertEqual(differences(entry, response.status, response.json()), [])
                self.assertEqual(response.all("content-type"), ["application/json"])


class FilesTests(SynchronousTestCase):
    """The corpus itself, and the page that is made from it."""

    def test_entries(self) -> None:
        """Each folder has its four files, a short stream and a source; there are enough providers."""
        folders = [path for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__"]
        self.assertEqual(
            {path.name: {file.name for file in path.iterdir()} for path in folders},
            {entry.name: FILES for entry in ENTRIES},
        )
        for entry in ENTRIES:
            self.assertLessEqual(len(entry.stream), LARGEST, entry.name)
            self.assertTrue(entry.sources, entry.name)
            self.assertEqual([url for url in entry.sources if not url.startswith("https://")], [], entry.name)
        self.assertGreaterEqual(len({entry.provider for entry in ENTRIES}), 20)
        self.assertEqual(set(SENT) - {entry.name for entry in ENTRIES}, set())

    def test_page(self) -> None:
        """The page about providers is what ``python -m tests.corpus`` writes."""
        self.assertEqual(PAGE.read_text(encoding="utf-8"), page())
