"""Measuring proxies side by side: all are started once in front of one provider, then take turns, round by round.

Idle proxies cost nothing; the CPU clock of a proxy's process tree is read just before its turn and again once it has
delivered everything, so what it does at other times is in nobody's figure (it is told apart, as `idle_cores`).
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench import processes, wrk
from bench.figures import LeftOut, Load, Measured, Turn
from bench.node import until_delivered
from bench.peers import Running
from bench.scenarios import Scenario, chat

Start = Callable[[int, Path], Running]
"""Starts a proxy, given the provider's port and a folder of its own."""
Work = Callable[[Running, Path, float], Load]
"""Loads a proxy for so many seconds, files in a folder."""
Settled = Callable[[Running], None]
"""Waits until a proxy has done all that its load gave it to do."""

UNREAD_NAME, UNREAD_METERING = "taximeter, usage not read", "the same, but of the call only: no usage, no price"


@dataclass
class Entrant:
    """A proxy that takes turns. Two may be one process tree called in two ways."""

    running: Running
    work: Work
    used_s: float = 0.0
    """CPU in its turns."""
    took_s: float = 0.0
    """Wall-clock of its turns."""


def compare(
    scenario: Scenario,
    starts: Mapping[str, Start],
    *,
    rounds: int,
    seconds: float,
    work: Work | None = None,
    settled: Settled = until_delivered,
) -> Measured:
    """Measure all proxies of `starts` in a scenario; one that cannot be had here is left out, with the reason.

    `work`: another load than the scenario's.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taximeter-bench-")))
        port = stack.enter_context(scenario.upstream(folder))
        entrants, left_out = [], []
        for name, start in starts.items():
            own = folder / name
            own.mkdir()
            try:
                running = start(port, own)
            except LeftOut as missing:
                left_out.append(f"{name}: {missing}")
                continue
            stack.callback(processes.stop, running.process)
            entrants.append(Entrant(running, work or scenario.load))
            if name == "taximeter" and scenario.unread_path:
                entrants.append(_unread(running, scenario))
        measured = take_turns(entrants, folder, settled, rounds=rounds, seconds=seconds)
        return replace(measured, left_out=left_out)


def _unread(running: Running, scenario: Scenario) -> Entrant:
    def work(same: Running, folder: Path, seconds: float) -> Load:
        return scenario.load(same, folder, seconds, scenario.unread_path)

    return Entrant(replace(running, name=UNREAD_NAME, metering=UNREAD_METERING), work)


def take_turns(entrants: list[Entrant], folder: Path, settled: Settled, *, rounds: int, seconds: float) -> Measured:
    """Warm every proxy up, then let each in turn have its load, round by round."""
    for entrant in entrants:
        _warm(entrant.running, folder, settled)
    begun, clocks = time.monotonic(), [processes.cpu(entrant.running.process.pid).total_s for entrant in entrants]
    turns = [_turn(entrant, folder, settled, number, seconds) for number in range(rounds) for entrant in entrants]
    took_s, idle_cores = time.monotonic() - begun, {}
    for entrant, clock in zip(entrants, clocks, strict=True):
        same = [other for other in entrants if other.running.process is entrant.running.process]
        idle_s = took_s - sum(other.took_s for other in same)
        used_s = processes.cpu(entrant.running.process.pid).total_s - clock - sum(other.used_s for other in same)
        if idle_s > 1 and same[0] is entrant:
            idle_cores[entrant.running.name] = used_s / idle_s
    return Measured(turns, idle_cores=idle_cores)


def _warm(running: Running, folder: Path, settled: Settled) -> None:
    """Caches, connections, the first files."""
    body = running.named(chat())
    lua = wrk.script(folder / "warm.lua", body, running.headers)
    wrk.run(running.url + "/chat/completions", lua, connections=8, seconds=1)
    settled(running)


def _turn(entrant: Entrant, folder: Path, settled: Settled, number: int, seconds: float) -> Turn:
    running, pid = entrant.running, entrant.running.process.pid
    begun, before = time.monotonic(), processes.cpu(pid)
    load = entrant.work(running, folder, seconds)
    settled(running)
    used = processes.cpu(pid) - before
    entrant.took_s += time.monotonic() - begun
    entrant.used_s += used.total_s
    pss = sum(processes.pss_bytes(pid).values())
    turn = Turn(running.name, number, load, used.by_title, pss, running.metering)
    print(f"round {number + 1}: {running.name} {turn.cpu_us:,.0f} µs, {load.rate:,.0f}/s", file=sys.stderr, flush=True)
    return turn
