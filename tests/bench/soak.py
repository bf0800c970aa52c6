"""`make soak MINUTES=20`: steady load on a whole node; memory's slope, and what is left open afterwards.

    python tests/bench/soak.py [--minutes 20] [--clients 6] [--json FILE]

Fails where connections, files or tasks are more after the load than before it, or the books do not agree. The slope
is a linear fit of each process's PSS over the second half of the run; the first half is left for caches to fill.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "proxy")]

from bench import processes  # noqa: E402
from faults.load import Load  # noqa: E402
from faults.running import Node  # noqa: E402
from upstream import Provider  # noqa: E402

SAMPLE_S = 5.0
TITLES = ("supervisor", "control", "worker", "valkey")
PYTHON_TITLES = ("control", "worker")
CONFIG = "[journal]\nroll_bytes = 1048576\nkeep_s = 20.0\n[history]\nretention_days = 1\n"
"""Files roll and go within the run, so that descriptors of old ones would show."""


@dataclass
class Samples:
    """PSS by process title over time."""

    at_s: list[float] = field(default_factory=list)
    bytes_of: dict[str, list[int]] = field(default_factory=lambda: {title: [] for title in TITLES})

    def take(self, at_s: float, pss: dict[str, int]) -> None:
        self.at_s.append(at_s)
        for title in TITLES:
            self.bytes_of[title].append(pss.get(title, 0))

    def slope_kb_a_minute(self, title: str) -> float:
        """Linear fit over the second half."""
        half = len(self.at_s) // 2
        fit = statistics.linear_regression(self.at_s[half:], self.bytes_of[title][half:])
        return fit.slope * 60 / 1024


@dataclass(frozen=True)
class Open:
    """What a process holds."""

    files: int
    connections: int
    tasks: int | None

    @staticmethod
    def by(pid: int) -> tuple[int, int]:
        """(files and pipes, sockets) that a process has open."""
        targets = [_target(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        sockets = sum(target.startswith("socket:") for target in targets)
        return len(targets) - sockets, sockets


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


async def held(node: Node, folder: Path) -> dict[str, Open]:
    """What all processes of each title hold now."""
    found: dict[str, Open] = {}
    for title in TITLES:
        pids = node.pids(title)
        tasks = sum([await tasks_of(node, pid, folder) for pid in pids]) if title in PYTHON_TITLES else None
        pairs = [Open.by(pid) for pid in pids]
        found[title] = Open(sum(files for files, _ in pairs), sum(sockets for _, sockets in pairs), tasks)
    return found


async def tasks_of(node: Node, pid: int, folder: Path) -> int:
    file = folder / str(pid)
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    await node.until(file.exists, f"told how many tasks process {pid} has")
    return len(file.read_text().splitlines())


async def soak(minutes: float, clients: int) -> dict[str, object]:
    samples = Samples()
    with tempfile.TemporaryDirectory(prefix="taximeter-soak-") as name:
        folder, tasks = Path(name), Path(name) / "tasks"
        tasks.mkdir()
        node = Node(folder / "node", config=CONFIG, env={"FAULTS_TASKS": str(tasks)},
                      provider=Provider(chunks=8, chunk_ms=5))  # fmt: skip
        node.loads = Load([], tracks=200, pause_s=0.05)
        async with node.provider, node:
            async with node.load(clients=clients, seed=1, chance_to_leave=0.1):
                await node.answered(50)
            await quiet(node)
            before = await held(node, tasks)
            begun = time.monotonic()
            async with node.load(clients=clients, seed=2, chance_to_leave=0.1):
                while (now := time.monotonic() - begun) < minutes * 60:
                    assert node.process is not None
                    samples.take(now, processes.pss_bytes(node.process.pid))
                    node.provider.requests.clear()  # what the provider remembers is no memory of ours, but of this
                    node.provider.ledger.clear()
                    node.loads.whole.clear()
                    await asyncio.sleep(SAMPLE_S)
            await quiet(node)
            after = await held(node, tasks)
            usage = await node.get("/usage")
            files = len(list((node.data / "journal").glob("*.jsonl")))
    counted, ended = usage["usage"]["requests"], node.loads.ended
    return {
        "calls": ended,
        "counted": counted,
        "seconds": round(samples.at_s[-1]),
        "journal_files_left": files,
        "pss": {
            title: {
                "start_mb": round(samples.bytes_of[title][0] / 2**20, 1),
                "end_mb": round(samples.bytes_of[title][-1] / 2**20, 1),
                "slope_kb_a_minute": round(samples.slope_kb_a_minute(title), 1),
            }
            for title in TITLES
        },
        "open": {title: {"before": vars(before[title]), "after": vars(after[title])} for title in TITLES},
        "leaks": leaks(before, after) + ([f"{ended} calls, {counted} counted"] if ended != counted else []),
    }


async def quiet(node: Node) -> None:
    """Everything delivered, and connections that clients left are closed."""
    await node.settle()

    async def idle() -> bool:
        return await node.metric("taximeter_requests_in_flight") == 0

    await node.until(idle, "idle")
    await asyncio.sleep(6)  # longer than connections of the control port's askers are kept


def leaks(before: dict[str, Open], after: dict[str, Open]) -> list[str]:
    """What is more after than before. A sink's pool may hold a connection and a file or two more than at first."""
    found = []
    for title in TITLES:
        for what, allowed in (("files", 4), ("connections", 8), ("tasks", 0)):
            old, new = getattr(before[title], what), getattr(after[title], what)
            if old is not None and new > old + allowed:
                found.append(f"{title}: {what} {old} -> {new}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Steady load; what grows?")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    args = parser.parse_args()
    figures = asyncio.run(soak(args.minutes, args.clients))
    text = json.dumps(figures, indent=2)
    sys.stdout.write(text + "\n")
    if args.json:
        args.json.write_text(text)
    return 1 if figures["leaks"] else 0


if __name__ == "__main__":
    sys.exit(main())
