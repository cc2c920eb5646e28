"""Page about providers, made from the corpus."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from tests.corpus import HERE, Entry, entries

PAGE = HERE.parent.parent / "docs" / "providers.md"
_HEAD = """\
# Providers

<!-- Made from tests/corpus by `python -m tests.corpus`: change the entries there, not this page. -->

What providers and servers stream differently from OpenAI's API reference. The client gets what the same
provider answers without a stream. The tests have {entries} streams of {providers} providers, each with that
answer, and replay them whole, byte by byte and cut at random; they are written after the documentation and
the reports linked here. The rules behind the table are in [conversion](conversion.md), the statuses of errors
in [errors](errors.md).

| Provider | What it does differently | What the proxy does about it | Source |
| --- | --- | --- | --- |
"""
_TAIL = """
A provider that is not listed most likely needs nothing. If one answers differently through the proxy, open an
issue with the stream and with the answer that it gives without one.
"""
_GITHUB = re.compile(r"/[^/]+/([^/]+)(?:/(?:issues|pull)/(\d+))?(?:/.*)?")


def page() -> str:
    """Return the page in Markdown."""
    found = entries()
    head = _HEAD.format(entries=len(found), providers=len({entry.provider for entry in found}))
    return head + "".join(map(_row, found)) + _TAIL


def _row(entry: Entry) -> str:
    sources = ", ".join(f"[{_title(url)}]({url})" for url in entry.sources)
    return f"| {entry.provider} | {entry.differs} | {entry.handled} | {sources} |\n"


def _title(url: str) -> str:
    """Return a short name of a source: its host, or the repository and the number of an issue."""
    parts = urlsplit(url)
    found = _GITHUB.fullmatch(parts.path) if parts.netloc == "github.com" else None
    if found is None:
        return parts.netloc.removeprefix("www.")
    return f"{found[1]}#{found[2]}" if found[2] else found[1]
