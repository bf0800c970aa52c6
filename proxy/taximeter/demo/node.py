"""The demo's node: `taximeter serve` in a process that ends, and removes its folder, when the demo is gone.

Run as `python -m taximeter.demo.node FOLDER`. Its stdin is a pipe whose other end only the demo holds: however the demo
ends, also by SIGKILL, this one sees the end of the pipe. A thread watches it, so that the supervisor need not know.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from taximeter.demo.folder import CONFIG, remove


def main() -> None:
    """Serve until SIGTERM or the end of stdin."""
    from taximeter.cli import main as taximeter

    folder = Path(sys.argv[1])
    orphaned = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the supervisor listens, which ends in order
    try:
        threading.Thread(target=_watch, args=(orphaned,), daemon=True).start()
        taximeter(["serve", "--config", str(folder / CONFIG)])
    finally:
        if orphaned.is_set():
            remove(folder)


def _watch(orphaned: threading.Event) -> None:
    while os.read(0, 64):
        pass
    orphaned.set()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
