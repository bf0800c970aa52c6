"""Time the questions of the control plane on a generated history (generate_history.py).

python tests/bench/ask_history.py sqlite:////tmp/bench/history.db
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import chain, islice
from typing import Any

from bench.generate_history import DAY_US, END_US, US
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.query import Filters

RUNS = 7
HOUR_US = 3_600 * US
RAGGED = Filters(from_us=END_US - 93 * DAY_US + 7 * HOUR_US + 123_456_789, to_us=END_US - 3 * HOUR_US - 987_654_321)
"""Almost all of 100 days, with both ends in the middle of everything."""
ONE = "workspace-003"


def ranged(days: float, **names: Any) -> Filters:
    """The last days up to a moment that is on no mark."""
    end_us = END_US - 1_234_567_890
    return Filters(from_us=end_us - int(days * DAY_US), to_us=end_us, **names)


def questions(reader: Reader) -> dict[str, Callable[[], object]]:
    (record, *_), _ = reader.events(ranged(50, task="index"), 1)
    mine = Filters(workspace=ONE)
    asked: dict[str, Callable[[], object]] = {
        "all time, totals": lambda: reader.usage(Filters()),
        "93 ragged days, totals": lambda: reader.usage(RAGGED),
    }
    for name in ("workspace", "provider", "model", "task", "operation", "key_id"):
        asked[f"93 ragged days by {name}"] = partial(reader.usage, RAGGED, [name])
    asked |= {
        "93 ragged days by workspace, model, task": lambda: reader.usage(RAGGED, ["workspace", "model", "task"]),
        "1 day by model": lambda: reader.usage(ranged(1), ["model"]),
        "1 hour by workspace": lambda: reader.usage(ranged(1 / 24), ["workspace"]),
        "10 minutes by workspace": lambda: reader.usage(ranged(1 / 144), ["workspace"]),
        "one workspace, 93 ragged days by model": lambda: reader.usage(ranged(93, workspace=ONE), ["model"]),
        "90 days by day": lambda: reader.usage(ranged(90), [], "day"),
        "30 days by day and model": lambda: reader.usage(ranged(30), ["model"], "day"),
        "7 days by hour": lambda: reader.usage(ranged(7), [], "hour"),
        "30 Berlin days": lambda: reader.usage(ranged(30), [], "day", "Europe/Berlin"),
        "30 Berlin days, one workspace, by model": lambda: reader.usage(
            ranged(30, workspace=ONE), ["model"], "day", "Europe/Berlin"
        ),
        "30 Kolkata days": lambda: reader.usage(ranged(30), [], "day", "Asia/Kolkata"),
        "12 months": lambda: reader.usage(Filters(), ["workspace"], "month", "Europe/Berlin"),
        "1 hour by minute": lambda: reader.usage(ranged(1 / 24), [], "minute"),
        "93 ragged days by end user": lambda: reader.usage(RAGGED, ["end_user"]),
        "93 ragged days by track": lambda: reader.usage(RAGGED, ["track"]),
        "one workspace, 93 ragged days by end user": lambda: reader.usage(ranged(93, workspace=ONE), ["end_user"]),
        "one workspace, 93 ragged days by document": lambda: reader.usage(ranged(93, workspace=ONE), ["document"]),
        "1 day by end user": lambda: reader.usage(ranged(1), ["end_user"]),
        "1 day by document": lambda: reader.usage(ranged(1), ["document"]),
        "30 Berlin days by end user": lambda: reader.usage(ranged(30), ["end_user"], "day", "Europe/Berlin"),
        "the same in parts": lambda: list(
            chain.from_iterable(reader.parts(ranged(30), ["end_user"], "day", "Europe/Berlin"))
        ),
        "the first part of it": lambda: next(reader.parts(ranged(30), ["end_user"], "day", "Europe/Berlin")),
        "1 day by end user and model": lambda: reader.usage(ranged(1), ["end_user", "model"]),
        "one document": lambda: reader.usage(Filters(document=record.document)),
        f"a track of {sum(p.totals.requests for p in reader.track(record.workspace, str(record.track)))} calls": (
            lambda: reader.track(record.workspace, str(record.track))
        ),
        "one request": lambda: reader.record(record.request_id),
        "newest 100": lambda: reader.events(Filters(), 100),
        "newest 100 of one workspace": lambda: reader.events(mine, 100),
        "newest 100 of the rarest workspace and model": lambda: reader.events(
            Filters(workspace="workspace-049", model="gpt-4o"), 100
        ),
        "top 10 workspaces of all time": lambda: sorted(
            reader.usage(Filters(), ["workspace"]), key=lambda each: -each.totals.cost_nusd
        )[:10],
        "export, first 20,000": lambda: list(islice(reader.export(RAGGED), 10)),
    }
    return asked


def main() -> None:
    with Reader.open(sys.argv[1]) as reader:
        (everything,) = reader.usage(Filters())
        records = everything.details.attempts + everything.details.corrections
        print(f"{records:,} records of 100 days, SQLite; median and longest of {RUNS}, most often the first.\n")
        print("| question | groups | median ms | longest ms |\n|---|---:|---:|---:|")
        for name, ask in questions(reader).items():
            times_ms = []
            for _ in range(RUNS):
                started = time.perf_counter()
                answer = ask()
                times_ms.append((time.perf_counter() - started) * 1_000)
            of = f"{len(answer):,}" if isinstance(answer, list) else "-"
            print(f"| {name} | {of} | {statistics.median(times_ms):.1f} | {max(times_ms):.1f} |", flush=True)


if __name__ == "__main__":
    main()
