"""Processes under measurement: start on chosen cores, CPU and memory of a whole tree from /proc, stop by pid."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from waits import ended, tree, until

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1
PROXY_CORE, LOAD_CORE = max(CORES, 2) - 1, 0
ALL_CORES = f"0-{CORES - 1}"
APART_CORES = f"{1 if CORES > 2 else 0}-{PROXY_CORE}"
"""For a node with `cores = "apart"`: its worker takes the last, where a proxy on one core is; the others get what is
left, which is not the load's core unless there are only two."""
Cores = int | str
"""One core, or a list as taskset takes it: `0-2`."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def start(argv: list[str], cores: Cores, *, env: dict[str, str] | None = None, log: Path) -> subprocess.Popen[bytes]:
    """Start a process, pinned with all its children."""
    with log.open("ab") as out:
        pinned = ["taskset", "-c", str(cores), *argv]
        return subprocess.Popen(pinned, env={**os.environ, **(env or {})}, stdout=out, stderr=out)


def come_first(pid: int, rank: int) -> None:
    """Run a process before all ordinary ones, where that is permitted, so that its delays are not taken for a proxy's.

    Of two such processes the one of the higher rank goes first.
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(rank))


@contextlib.contextmanager
def undisturbed(*, first: bool = False) -> Iterator[None]:
    """For a load made in this process: on the load's core, so never in a proxy's way, and with no garbage collected.

    `first`: before every other process of that core; for a load that leaves most of it to them.
    """
    allowed, collecting = os.sched_getaffinity(0), gc.isenabled()
    policy, param = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setaffinity(0, {LOAD_CORE})
    if first:
        come_first(0, 2)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
        os.sched_setscheduler(0, policy, param)
        if collecting:
            gc.enable()


def until_open(port: int, process: subprocess.Popen[bytes]) -> float:
    """Wait until a port answers; seconds it took. Raises RuntimeError when the process ends before."""

    def is_open() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode} before its port {port} was open")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    begun = time.monotonic()
    until(is_open, f"port {port} to be open", process.pid)
    return time.monotonic() - begun


def serving(argv: list[str], port: int, *, env: dict[str, str] | None = None, log: Path) -> subprocess.Popen[bytes]:
    """A started proxy whose port is open, on the proxies' core. Raises RuntimeError where it ends before."""
    process = start(argv, PROXY_CORE, env=env, log=log)
    try:
        until_open(port, process)
    except BaseException:
        stop(process)
        raise
    return process


def stop(process: subprocess.Popen[bytes], within_s: float | None = None) -> None:
    """SIGTERM, and SIGKILL when its end is late, for the process and what is left of its children.

    `within_s`: what is late, for a process whose end nobody is interested in.
    """
    pids = tree(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        if within_s is None:
            ended(process)
        else:
            process.wait(within_s)
    except (TimeoutError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def age_s(pid: int) -> float:
    """Seconds since a process was started, to 10 ms (proc(5): starttime)."""
    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(started) / TICKS_PER_S


@dataclass(frozen=True)
class Cpu:
    """CPU seconds (user + system) by process title."""

    by_title: dict[str, float]

    @property
    def total_s(self) -> float:
        return sum(self.by_title.values())

    def __sub__(self, before: Cpu) -> Cpu:
        return Cpu({name: s - before.by_title.get(name, 0.0) for name, s in self.by_title.items()})


def cpu(pid: int) -> Cpu:
    """CPU time so far of a process tree."""
    used: dict[str, float] = {}
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            name = title(one)
            used[name] = used.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return Cpu(used)


def title(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    for mark, name in (
        ("taximeter: worker", "worker"),
        ("taximeter: control", "control"),
        ("taximeter: tokenizer", "tokenizer"),
        ("valkey", "valkey"),
    ):
        if mark in words:
            return name
    return "supervisor" if "taximeter: supervisor" in words else "other"


def pss_bytes(pid: int) -> dict[str, int]:
    """Proportional set size by process title of a process tree."""
    used: dict[str, int] = {}
    for one in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    used[title(one)] = used.get(title(one), 0) + int(line.split()[1]) * 1024
    return used
