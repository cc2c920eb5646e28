"""Fuzzing of one target, under Atheris if installed: ``python -m kits.fuzz.engine TARGET SECONDS FOLDER``.

Inputs that reach new code are kept in ``FOLDER/corpus``, failures in ``FOLDER/found``.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from pathlib import Path

_LONGEST = 4096


def main(name: str, seconds: float, folder: Path) -> int:
    """Fuzz the target; the exit status is nonzero if it failed."""
    corpus, found = folder / "corpus" / name, folder / "found"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    try:
        import atheris
    except ImportError:
        return _with_hypothesis(name, seconds, found)
    with atheris.instrument_imports(include=["stream_proxy", "jmespath"]):
        from kits.fuzz.targets import TARGETS, WORDS
    words = folder / "words"
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS)
    words.write_text("".join(f'"{word}"\n' for word in escaped))
    arguments = [
        sys.argv[0],
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={_LONGEST}",
        "-timeout=20",
        "-rss_limit_mb=4096",
        f"-dict={words}",
        f"-artifact_prefix={found}/{name}-",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup(arguments, TARGETS[name])
    atheris.Fuzz()
    return 0


def _with_hypothesis(name: str, seconds: float, found: Path) -> int:
    from kits.fuzz.hypothesis_engine import try_for
    from kits.fuzz.targets import TARGETS

    last = b""

    def kept(data: bytes) -> None:
        nonlocal last
        last = data
        TARGETS[name](data)

    try:
        count = try_for(kept, seconds)
    except Exception:
        traceback.print_exc()
        path = found / f"{name}-{hashlib.sha1(last).hexdigest()}"
        path.write_bytes(last)
        print(f"Test unit written to {path}")
        return 1
    print(f"stat::number_of_executed_units: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])))
