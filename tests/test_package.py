"""Public names of ``stream_proxy``, and the cost of importing them."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

import stream_proxy

WITHOUT_TWISTED = """
import sys
from stream_proxy import ChatCompletionsAccumulator, ResponseAccumulator, ServerSentEvent, SSEDecoder
from stream_proxy import APIError, IncompleteStreamError
decoder, accumulator = SSEDecoder(), ChatCompletionsAccumulator()
for event in decoder.feed(b'data: {"choices": [{"delta": {"content": "x"}}]}\\n\\ndata: [DONE]\\n\\n'):
    accumulator.feed(event)
accumulator.result()
print(sorted({name.partition(".")[0] for name in sys.modules} & {"twisted", "treq", "autobahn", "zope"}))
"""


class PackageTests(SynchronousTestCase):
    """The public names."""

    def test_sans_io_without_twisted(self) -> None:
        """Decoder and accumulators work in a process that has not loaded Twisted."""
        run = [sys.executable, "-c", WITHOUT_TWISTED]
        self.assertEqual(subprocess.run(run, check=True, capture_output=True, text=True).stdout, "[]\n")

    def test_names(self) -> None:
        """Every public name is there and listed; another is an AttributeError."""
        for name in stream_proxy.__all__:
            self.assertIn(name, dir(stream_proxy))
            self.assertEqual(getattr(stream_proxy, name).__name__, name)
        self.assertRaises(AttributeError, getattr, stream_proxy, "no_such_name")
