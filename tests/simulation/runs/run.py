"""Simulations by hand: `make simulate SEEDS=1000`, and `make simulate SEED=n TRACE=1` for the story of one.

A seed that breaks a promise, crashes or hangs stops no other, and is made as small as it can be.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from simulation.runs.hunt import hunt
from simulation.runs.many import Task, drawn, earlier, many
from simulation.runs.smaller import smaller, tried
from simulation.simulation import run


def _number(least: int) -> Callable[[str], int]:
    """What an option takes: a whole number that is not below this."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return int(text)

    return number


def _seconds(text: str) -> float:
    """What an option takes: so long, above nothing."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return found


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command's. Ends the program where they make no sense: a run of no seed would have kept every promise."""
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--seeds", type=_number(1), default=50, help="how many, from --first on")
    parser.add_argument("--first", type=_number(0), help="the first (0; with --add the one behind the last of before)")
    parser.add_argument("--seed", type=_number(0), help="one, which is told of at length")
    parser.add_argument(
        "--calls", type=_number(1), default=250, help="about how many in one; each fourth has eight times as many"
    )
    parser.add_argument("--jobs", type=_number(1), default=1, help="processes side by side")
    parser.add_argument("--seconds", type=_seconds, default=0.0, help="begin no further seed after so long (no bound)")
    parser.add_argument("--seed-seconds", type=_seconds, default=180.0, help="a seed that takes longer hangs")
    parser.add_argument(
        "--smaller-seconds", type=_seconds, default=60.0, help="how long a failing seed is made smaller"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="the sums of the run, as JSON")
    parser.add_argument("--add", action="store_true", help="to what --write's file has of earlier runs")
    parser.add_argument(
        "--mutants", action="store_true", help="which seed finds each bug that is sown; kept in sown/found.json"
    )
    parser.add_argument("--trace", action="store_true", help="the story of --seed, step by step")
    asked = parser.parse_args(words)
    if asked.add and asked.write is None:
        parser.error("--add is about the file that --write names")
    if asked.trace and asked.seed is None:
        parser.error("--trace tells the story of one seed: say which with --seed (make: SEED=n)")
    if asked.write is not None:
        if asked.seed is not None or asked.mutants:
            parser.error("--write is for runs of many seeds: --seed and --mutants have no sums")
        if why := _unwritable(asked.write):
            parser.error(f"--write: {why}")
    if asked.add:
        try:
            earlier(asked.write)
        except (ValueError, OSError) as error:
            parser.error(f"--add: {asked.write} has no sums of earlier runs ({error}); nothing was changed")
    return asked


def _unwritable(file: Path) -> str:
    """Why a file cannot be written; "": it can. Better known now than after hours."""
    if not file.parent.is_dir():
        return f"there is no directory {file.parent}"
    if file.is_dir():
        return f"{file} is a directory"
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            return ""
    except OSError as error:
        return f"nothing can be written in {file.parent}: {error.strerror}"


def main() -> int:
    """0 where no promise was broken."""
    asked = _arguments(sys.argv[1:])
    if asked.mutants:
        return hunt(asked.seeds, asked.jobs)
    if asked.seed is not None:
        return _one(Task(asked.seed, asked.calls), trace=asked.trace, within_s=asked.smaller_seconds)
    return many(
        asked.seeds,
        asked.first,
        calls=asked.calls,
        jobs=asked.jobs,
        seconds=asked.seconds,
        bound_s=asked.seed_seconds,
        smaller_s=asked.smaller_seconds,
        file=asked.write,
        adds=asked.add,
    )


LEGEND = """\
seconds      node/process; what it does. Where it may die there are two lines, before the effect and after it. What no
             process does has no name before it: calls of clients, FAULTS, what operators do. FAULTS are listed at the
             end, below the settings and what was drawn; the last line is the verdict. `grep call-7` follows a call.
"""


def _one(task: Task, *, trace: bool, within_s: float) -> int:
    plan = drawn(task)
    outcome = tried(plan)
    if outcome.violation:
        print(f"seed {task.seed}: {outcome.violation}\nmaking it smaller …", flush=True)
        plan, outcome = smaller(plan, outcome, within_s=within_s)
    if trace:
        outcome = run(plan, tells=True)
        print("\n".join((LEGEND, *outcome.story)))
    print(plan.shown())
    print(outcome.violation or "every promise was kept", dict(sorted(outcome.counts.items())))
    return 1 if outcome.violation else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # or the order of a set would be another each time
        os.execve(
            sys.executable,
            [sys.executable, "-m", "simulation.runs.run", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; with --write the sums so far are kept, and --add goes on behind them")
