"""`make bench`: what a call costs beside nginx as the floor, and everything else that is promised in figures.

    PYTHONPATH=tests python -m bench.run [--only unary,stream] [--peers nginx,taximeter] [--rounds 5] [--no-write]

Each section is measured by itself; one that cannot be is left out with the reason, and the rest goes on. Only the
sections of this run are replaced in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import interpreter, latency, lightrag, otel, page, path, peers, processes, resident, rounds, workers, wrk
from bench.figures import LeftOut
from bench.node import taximeter
from bench.scenarios import SCENARIOS, Scenario

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"

STARTS: dict[str, rounds.Start] = {
    **{"nginx": peers.nginx, "taximeter": taximeter},
    **{name: peer.start for name, peer in peers.PEERS.items()},
}
USUAL = ("nginx", "taximeter")
BESIDE = ", beside other gateways"
"""How the section of a scenario is called where more than the usual proxies are asked for: the usual one stays."""
HISTORY_RECORDS = 200_000

Section = Callable[[argparse.Namespace], list[str]]


def compared(scenario: Scenario, asked: argparse.Namespace) -> list[str]:
    """A table of proxies."""
    wrk.needed()
    starts = {name: STARTS[name] for name in asked.peers}
    starts["taximeter"] = functools.partial(taximeter, provider=scenario.of)
    serving = [name for name in asked.peers if name == "taximeter" or scenario.path in peers.PEERS[name].paths]
    measured = rounds.compare(
        scenario, {name: starts[name] for name in serving}, rounds=asked.rounds, seconds=asked.seconds
    )
    if not measured.turns:
        raise LeftOut("; ".join(measured.left_out))
    measured.left_out.extend(f"{name}: not on {scenario.path}" for name in asked.peers if name not in serving)
    floor = "nginx" if any(turn.proxy == "nginx" for turn in measured.turns) else None
    return page.table(measured, floor)


def program(name: str, *arguments: str) -> list[str]:
    """The lines that a benchmark prints that is a program of its own. Raises RuntimeError where it fails."""
    paths = [str(HERE.parent), str(ROOT / "proxy"), *filter(None, [os.environ.get("PYTHONPATH")])]
    argv = ["taskset", "-c", processes.ALL_CORES, sys.executable, str(HERE / name), *arguments]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
    return done.stdout.rstrip().splitlines()


def on_history(asked: argparse.Namespace, name: str) -> list[str]:
    """What a program prints about a history: the one given, else a generated one."""
    if asked.history:
        return ["On a given history.", "", *program(name, asked.history)]
    with TemporaryDirectory(prefix="taximeter-bench-") as folder:
        url = f"sqlite:///{folder}/history.db"
        program("generate_history.py", url, "--records", str(HISTORY_RECORDS))
        return [f"On {HISTORY_RECORDS:,} records over 100 days.", "", *program(name, url)]


SECTIONS: dict[str, Section] = {
    **{each.name: functools.partial(compared, each) for each in SCENARIOS},
    "interpreters": lambda asked: interpreter.measure(ROOT, asked.rounds, asked.seconds),
    "latency": lambda asked: latency.measure(asked.rounds, asked.seconds),
    "path": lambda _: path.measure(),
    "workers": lambda asked: workers.measure(asked.rounds, asked.seconds),
    "memory": lambda _: resident.memory(),
    "start": lambda _: resident.start(),
    "delivery": lambda _: program("delivery.py", "--records", "60000"),
    "otel": lambda asked: otel.measure(asked.rounds, asked.seconds),
    "lightrag": lambda asked: lightrag.measure(asked.rounds or 3),
    "tokenizing": lambda _: program("tokenizing.py"),
    "queries": lambda asked: on_history(asked, "ask_history.py"),
    "dashboard": lambda asked: on_history(asked, "pages.py"),
}
"""In the order of the page."""
ROUNDS = {
    "unary": 5,
    "stream": 5,
    "messages": 3,
    "embeddings 2 MB": 3,
    "prompt 100 KB": 3,
    "interpreters": 3,
    "latency": 3,
    "workers": 5,
    "otel": 3,
}
"""Of sections whose proxies take turns; together with the others they take less than six minutes."""
BY_HAND = ("goals", "other gateways")
"""Sections that no measurement writes, and none takes away."""
ORDER = [
    *BY_HAND,
    *(p for name in SECTIONS for p in (name, *([name + BESIDE] if name in {s.name for s in SCENARIOS} else []))),
]


def stamp(turns: str) -> str:
    """When, at which commit and on what it was measured."""
    return (
        f"{time.strftime('%Y-%m-%d')}, commit {_commit()}: {_cpu_model()}, {processes.CORES} cores, "
        f"{platform.system()} {platform.release().split('-')[0]}, {interpreter.described()}{turns}"
    )


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", "proxy", "tests", "config")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if changed else "")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(description="What a call costs; writes docs/benchmarks.md.")
    options.add_argument("--only", default=",".join(SECTIONS), help="sections by comma; default: all")
    options.add_argument("--peers", default=",".join(USUAL), help=f"by comma, of {', '.join(STARTS)}; or all")
    options.add_argument("--rounds", type=int, default=0, help="default: five, of some sections three")
    options.add_argument("--seconds", type=float, default=3, help="of each turn")
    options.add_argument("--history", default="", help="URL, of queries and dashboard; default: a generated one")
    options.add_argument("--within", type=float, default=0, help="begin no section after so many seconds")
    options.add_argument("--no-write", action="store_true", help="print only")
    asked = options.parse_args()
    asked.only, asked.peers = asked.only.split(","), list(STARTS) if asked.peers == "all" else asked.peers.split(",")
    for what, known in ((asked.only, SECTIONS), (asked.peers, STARTS)):
        if unknown := [name for name in what if name not in known]:
            options.error(f"no such {', '.join(unknown)}; there are {', '.join(known)}")
    if asked.rounds < 0 or asked.seconds < 1:
        options.error("at least one round of one second")
    return asked


def section(name: str, asked: argparse.Namespace) -> list[str]:
    """Measure one section: its lines, with where and when below them. Raises what the measurement raises."""
    turns = ""
    if name in ROUNDS:
        asked = argparse.Namespace(**{**vars(asked), "rounds": asked.rounds or ROUNDS[name]})
        turns = f"; {asked.rounds} {'rounds' if asked.rounds > 1 else 'round'} of {asked.seconds:g} s"
    try:
        return page.stamped(SECTIONS[name](asked), stamp(turns))
    except LeftOut as missing:
        print(f"make bench: {name} left out: {missing}", file=sys.stderr)
        return page.stamped([f"Left out: {missing}."], stamp(""))


def main() -> int:
    asked = arguments()
    measured: dict[str, list[str]] = {}
    failed = []
    beside = BESIDE if set(asked.peers) - set(USUAL) else ""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is ended all the same
    started = time.monotonic()
    for name in asked.only:
        begun = time.monotonic()
        if asked.within and begun - started > asked.within:
            failed.append(name)
            continue
        print(f"── {name}", file=sys.stderr, flush=True)
        try:
            place = name + beside if name in {each.name for each in SCENARIOS} else name
            measured[place] = section(name, asked)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            print(f"make bench: {name} failed: {error}", file=sys.stderr)
            failed.append(name)
        print(f"   {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        if not asked.no_write:  # now: a run that is ended in between has written what it measured
            PAGE.write_text(page.merged(PAGE.read_text() if PAGE.exists() else "", measured, ORDER))
    print(page.merged("", measured, ORDER))
    if failed:
        print(f"make bench: not measured: {', '.join(failed)}; what the page had of them stays", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
