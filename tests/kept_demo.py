"""A kept demo as a user has it: in a folder with a .venv, its ports free, typed at from a second terminal."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taximeter.demo.serving import documented_addresses
from waits import until

START_S = 180.0
"""Bound of the wait for a demo that says something; the machine may be busy."""

NAMESPACE = (shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--net")
"""A network of its own, in which 8000 and 8001 are free whatever else runs here."""
LOOPBACK_UP = (
    "import fcntl, os, socket, struct, sys\n"
    'fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP\n'
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


class Terminal:
    """A folder as `make install` leaves it, with programs running in a network of their own where that can be had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".venv").symlink_to(sys.prefix)
        alone = [*NAMESPACE, sys.executable, "-c", LOOPBACK_UP]
        self._alone = alone if _works([*alone, "true"]) else []
        self._entering: list[str] = []
        if not self._alone and documented_addresses() is None:
            pytest.skip("8000 or 8001 is in use, and there is no network namespace to be had")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("TAXIMETER_", "LIGHTRAG_"))}
        self.environ = clean | {"PYTHONPATH": str(Path(__file__).parents[1] / "proxy"), "COLUMNS": "126"}

    def spawn(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Start it; the first one makes the network that all others share. Its output is in `log`."""
        with self.log(len(list(self.folder.glob("*.log")))).open("w") as log:
            process = subprocess.Popen(
                [*(self._entering or self._alone), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environ | environ,
                text=True,
                start_new_session=True,
            )
        if self._alone and not self._entering:
            self._entering = [
                shutil.which("nsenter") or "nsenter",
                "--user",
                "--net",
                "--preserve-credentials",
                "-t",
                str(process.pid),
            ]
        return process

    def log(self, number: int) -> Path:
        return self.folder / f"{number}.log"

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        """A line of a shell, to its end."""
        return subprocess.run(
            [*self._entering, "sh", "-c", line],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environ,
            timeout=START_S,
            check=False,
        )

    @contextmanager
    def kept(self, number: int = 0, **environ: str) -> Iterator[str]:
        """A kept demo: what it said once it had said all."""
        process = self.spawn(".venv/bin/taximeter", "demo", "--keep", **environ)

        def said() -> str | None:
            text = self.log(number).read_text()
            assert process.poll() is None, text
            return text if "For a client:" in text and text.endswith("\n") else None

        try:
            yield until(said, "a demo that is kept", process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(START_S) == 0, self.log(number).read_text()


def lines(said: str) -> list[str]:
    """What a kept demo says can be typed."""
    return re.findall(r"^  (\S.*)$", said.partition("To type in another terminal")[2], re.MULTILINE)


def tool_folder(folder: Path, *programs: str) -> str:
    """A PATH on which there are these programs only."""
    folder.mkdir()
    for program in programs:
        found = shutil.which(program)
        if found:
            (folder / program).symlink_to(found)
    return str(folder)


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
