"""Measuring proxies side by side: all are started once in front of one provider, then take turns, round by round.

Idle proxies cost nothing; the CPU clock of a proxy's process tree is read just before its turn and again once it has
delivered everything, so what it does at other times is in nobody's figure (it is told apart, as `idle_cores`).
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import answers, books, processes, wrk
from bench.figures import Books, LeftOut, Load, Measured, Turn, of_proxy
from bench.node import until_delivered
from bench.running import CHAT, MESSAGES, Running
from bench.scenarios import UNARY, Scenario, chat

Start = Callable[[int, Path], Running]
"""Starts a proxy, given the provider's port and a folder of its own."""
Work = Callable[[Running, Path, float], Load]
"""Loads a proxy for so many seconds, files in a folder."""
Settled = Callable[[Running], None]
"""Waits until a proxy has done all that its load gave it to do."""

MOST_FAILED_SHARE = 0.01
WARM_TRIES, PEER_END_S = 5, 5.0
ENOUGH_CALLS, LONGEST_TURNS = 600, 3
"""Slow proxies get longer turns, up to three times as long, so that they come to some hundred calls, too."""
UNREAD_NAME, UNREAD_METERING = "taximeter, usage not read", "the same, but of the call only: no usage, no price"


@dataclass
class Entrant:
    """A proxy that takes turns. Two may be one process tree called in two ways."""

    running: Running
    work: Work
    counts_tokens: bool = True
    """Not where its load goes to a path whose answers it does not read."""
    rate: float = 0.0
    """Calls a second that it did when it was warmed up; 0: none, or it was not."""
    used_s: float = 0.0
    """CPU in its turns, reading its books included."""
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
        direct = answers.post(f"http://127.0.0.1:{port}/v1{scenario.path}", scenario.body, {})
        entrants: list[Entrant] = []
        left_out, start_s = [], {}
        for name, start in starts.items():
            own = folder / name
            own.mkdir()
            try:
                running = start(port, own)
                stack.callback(processes.stop, running.process, PEER_END_S if running.admin_port is None else None)
                start_s[running.name] = answers.first(running, scenario.path, scenario.body)
                answers.check(running, scenario.path, scenario.body, direct)
            except LeftOut as missing:
                left_out.append(f"{name}: {missing}")
                continue
            entrants.append(Entrant(running, work or scenario.load))
            if name == "taximeter" and scenario.unread_path:
                entrants.append(_unread(running, scenario))
            if name == "taximeter" and scenario is UNARY:
                entrants.append(_each_another(running, scenario))
        for entrant in entrants:
            entrant.rate = _warm(entrant.running, scenario, folder, settled)
        measured = take_turns(entrants, folder, port, settled, rounds=rounds, seconds=seconds)
        left_out += [f"{name}: {why}" for name, why in failing(measured.turns).items()]
        turns = [turn for turn in measured.turns if turn.proxy not in failing(measured.turns)]
        return replace(measured, turns=turns, left_out=left_out + measured.left_out, start_s=start_s)


def failing(turns: Sequence[Turn]) -> dict[str, str]:
    """Proxies more than a hundredth of whose calls failed, with how many: their figures are of something else."""
    found = {}
    for name in dict.fromkeys(turn.proxy for turn in turns):
        failed, calls = (
            sum(of) for of in zip(*((t.load.failed, t.load.calls) for t in of_proxy(turns, name)), strict=True)
        )
        if failed > calls * MOST_FAILED_SHARE:
            found[name] = f"{failed:,} of {calls:,} calls failed"
    return found


def _unread(running: Running, scenario: Scenario) -> Entrant:
    def work(same: Running, folder: Path, seconds: float) -> Load:
        return scenario.load(same, folder, seconds, scenario.unread_path)

    return Entrant(replace(running, name=UNREAD_NAME, metering=UNREAD_METERING), work, counts_tokens=False)


def _each_another(running: Running, scenario: Scenario) -> Entrant:
    def work(same: Running, folder: Path, seconds: float) -> Load:
        return scenario.load(same, folder, seconds, each_another=True)

    return Entrant(replace(running, name="taximeter, each head another"), work)


def take_turns(
    entrants: list[Entrant], folder: Path, port: int, settled: Settled, *, rounds: int, seconds: float
) -> Measured:
    """Let each proxy in turn have its load, round by round; `port`: the provider's."""
    begun, clocks = time.monotonic(), [processes.cpu(entrant.running.process.pid).total_s for entrant in entrants]
    turns: list[Turn] = []
    given_up: dict[str, str] = {}
    for number, entrant in itertools.product(range(rounds), entrants):
        name = entrant.running.name
        if name in given_up:
            continue
        try:
            turns.append(_turn(entrant, folder, port, settled, number, lasting_s(seconds, entrant.rate)))
        except RuntimeError as error:
            if entrant.running.admin_port is not None:  # ours: a benchmark that fails, no row that is missing
                raise
            given_up[name] = str(error).splitlines()[0]
    turns = [turn for turn in turns if turn.proxy not in given_up]
    took_s, idle_cores = time.monotonic() - begun, {}
    for entrant, clock in zip(entrants, clocks, strict=True):
        same = [other for other in entrants if other.running.process is entrant.running.process]
        idle_s = took_s - sum(other.took_s for other in same)
        used_s = processes.cpu(entrant.running.process.pid).total_s - clock - sum(other.used_s for other in same)
        if idle_s > 1 and same[0] is entrant:
            idle_cores[entrant.running.name] = used_s / idle_s
    return Measured(turns, [f"{name}: {why}" for name, why in given_up.items()], idle_cores)


def lasting_s(seconds: float, rate: float) -> float:
    """How long a turn of a proxy lasts that does `rate` calls a second: longer where that is slow, within a bound."""
    return max(seconds, min(ENOUGH_CALLS / max(rate, 1.0), LONGEST_TURNS * seconds))


def _warm(running: Running, scenario: Scenario, folder: Path, settled: Settled) -> float:
    """Caches, connections, the first files; the calls a second that it came to."""
    rate = 0.0
    path, body = (MESSAGES, scenario.body) if scenario.path == MESSAGES else (CHAT, chat())
    lua = wrk.script(folder / "warm.lua", running.named(body), running.headers)
    for _ in range(WARM_TRIES):
        with contextlib.suppress(RuntimeError):  # not one answer within a second: it is still cold
            rate = wrk.run(running.url + path, lua, connections=8, seconds=1).rate
            break
    settled(running)
    return rate


def _turn(entrant: Entrant, folder: Path, port: int, settled: Settled, number: int, seconds: float) -> Turn:
    running, pid = entrant.running, entrant.running.process.pid
    begun, idle = time.monotonic(), processes.cpu(pid)
    billed, counted = _books(entrant, port)
    before = processes.cpu(pid)
    load = entrant.work(running, folder, seconds)
    settled(running)
    used = processes.cpu(pid) - before
    pss = sum(processes.pss_bytes(pid).values())
    billed_now, counted_now = _books(entrant, port)
    entrant.took_s += time.monotonic() - begun
    entrant.used_s += (processes.cpu(pid) - idle).total_s
    since = counted_now - counted if counted and counted_now else None
    turn = Turn(running.name, number, load, used.by_title, pss, running.metering, billed_now - billed, since)
    print(f"round {number + 1}: {running.name} {turn.cpu_us:,.0f} µs, {load.rate:,.0f}/s", file=sys.stderr, flush=True)
    return turn


def _books(entrant: Entrant, port: int) -> tuple[Books, Books | None]:
    """What the provider has answered, and what the proxy says it has counted."""
    counted = entrant.running.books() if entrant.running.books else None
    if counted and not entrant.counts_tokens:
        counted = replace(counted, tokens=None)
    return books.of_provider(port), counted
