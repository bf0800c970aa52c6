"""A whole Taximeter as its own processes, for tests that kill, stop and restart it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taximeter.node.datadir import Runtime, read_runtime
from waits import ended, run, until


class Node:
    """`taximeter serve` on a data directory, ports of its own."""

    def __init__(self, directory: Path, **environ: str) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.log_file = directory / "serve.log"
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("TAXIMETER_", "LIGHTRAG_"))
        }
        self.environ = inherited | {
            "PYTHONPATH": str(Path(__file__).parents[1] / "proxy"),
            "TAXIMETER_LISTEN": "127.0.0.1:0",
            "TAXIMETER_ADMIN_LISTEN": "127.0.0.1:0",
            "TAXIMETER_DATA_DIR": str(self.data_dir),
            **environ,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> Runtime:
        """Start it and wait until it says that it is ready."""
        return until(self._ready, "readiness", self.spawn(*arguments).pid)

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it, its output in `log_file`. In a session of its own, so a test's Ctrl-C is not its."""
        self.log_file.write_bytes(b"")
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "taximeter", *(arguments or ("serve",))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environ,
                cwd=self.directory,
                start_new_session=True,
            )
        return self.process

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """One command to its end."""
        argv = [sys.executable, "-m", "taximeter", *arguments]
        return run(argv, env=self.environ | environ, cwd=self.directory)

    def _ready(self) -> Runtime | None:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log}"
        runtime = read_runtime(self.data_dir)
        return runtime if runtime and runtime.pid == self.process.pid else None

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def children(self) -> dict[str, int]:
        """Title after `taximeter: ` -> process id, of this node's processes."""
        assert self.process is not None
        found = {}
        for directory in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if _parent(int(directory.name)) != self.process.pid:
                    continue
                ours, *title = (directory / "cmdline").read_bytes().rstrip(b"\0 ").decode().split()
                if ours == "taximeter:":
                    found[" ".join(title[:2]) if title[0] == "worker" else title[0]] = int(directory.name)
        return found

    def child(self, name: str, other_than: int = 0) -> int:
        """The process id of a child, as soon as there is one (other than the one that was)."""
        return until(lambda: (pid := self.children().get(name, 0)) != other_than and pid, name)

    def records(self) -> list[dict[str, Any]]:
        """Every close line in its journal."""
        found = []
        for file in sorted((self.data_dir / "journal").glob("*.jsonl")):
            for line in file.read_bytes().split(b"\n"):
                with contextlib.suppress(ValueError):
                    found += [value for key, value in json.loads(line).items() if key == "close"]
        return found

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return ended(self.process)


@contextlib.contextmanager
def node(directory: Path, **environ: str) -> Iterator[Node]:
    """A Node that does not outlive the test."""
    made = Node(directory, **environ)
    try:
        yield made
    finally:
        if made.log_file.exists():
            print(made.log)  # shown by pytest where the test fails
        if made.process is not None and made.process.poll() is None:
            made.process.terminate()
            try:
                ended(made.process)
            except TimeoutError:
                made.process.kill()
                made.process.wait()


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
