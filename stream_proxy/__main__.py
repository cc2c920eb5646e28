"""Command ``openai-stream-proxy``, also ``python -m stream_proxy``."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command, and end by SIGINT as quietly while it starts as while it serves."""
    try:
        from stream_proxy.service.command.run import run

        status = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BrokenPipeError:  # whoever reads what is printed has enough, as head has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()
