"""``python -m tests.corpus``: write ``docs/providers.md`` from the corpus."""

from __future__ import annotations

from tests.corpus.page import PAGE, page

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
