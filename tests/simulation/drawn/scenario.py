"""What a seed draws, before anything happens."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from simulation.actors.client import Plan, plans
from simulation.drawn.keyed import with_keys
from simulation.drawn.periods import by_period
from simulation.drawn.profiles import profiled
from simulation.drawn.rarer import struck
from simulation.drawn.rates import draw as draw_rates
from simulation.drawn.rates import forgotten, written_anew
from simulation.events import leaving, machines, paths
from simulation.events.deeds import Deed
from simulation.events.deeds import draw as draw_deeds
from simulation.events.faults import EVERYDAY, FORGETFUL, Fault, draw
from simulation.events.later import Job
from simulation.events.later import draw as draw_jobs

TUNING = {
    "taximeter.delivery.follow:BUFFER_RECORDS": (4, 20),
    "taximeter.delivery.follow:BATCH_RECORDS": (3, 20),
    "taximeter.delivery.shipper:BATCH_RECORDS": (3, 20),
    "taximeter.delivery.feed:MARK_RECORDS": (1, 5),
    "taximeter.journal.tail:SLAB_BYTES": (1_500, 4_000),
    "taximeter.journal.lines:_FLUSH_LINES": (1, 3),
    "taximeter.sinks.redis.counters:_RECORDS_A_CALL": (1, 4),
    "taximeter.sinks.redis.counters:_JOURNALS": (2, 4),
    "taximeter.sinks.redis.rebuild:_KEYS_A_CALL": (1, 5),
    "taximeter.sinks.redis.positions:REMEMBERED": (1, 3),
}


class Scenario(msgspec.Struct, kw_only=True):
    """What a seed draws, before anything happens."""

    seed: int
    calls: list[Plan]
    faults: list[Fault]
    nodes: int
    workers: int
    settings: dict[str, Any]
    tuning: dict[str, int]
    """Bounds of the product that are so large that a short simulation never meets them: smaller ones."""
    over_s: float
    budgets: list[dict[str, Any]] = []
    """Of workspace w0; hard ones of all time, where they say nothing else."""
    late_s: float = 0.0
    """So much later than usual it begins, by the clock."""
    jobs: list[Job] = []
    """What is billed later."""
    collects: bool = False
    """Control fetches what nobody does."""
    forwards: bool = False
    """What clients bring of credentials goes on to the provider, but for proxy keys."""
    deeds: list[Deed] = []
    rates: list[dict[str, Any]] = []
    window_s: int = 60
    """Of rates."""
    receiver: list[Any] = []
    """When (s) the webhook's receiver does not do what it should, and what it does instead."""
    audited: bool = True
    """The audit of Redis comes round; else what it forgot has to be noticed without it."""
    profile: str = ""
    """What the seed is about beside the rest (`profiles`)."""

    def shown(self) -> str:
        """For whoever reads the story."""
        where = f"{self.nodes} nodes with {self.workers} workers"
        lines = [f"seed {self.seed}: {len(self.calls)} calls in {self.over_s:g} s, {where}"]
        lines.append(f"settings {self.settings}")
        lines.append(f"bounds of the product that are made small: {self.tuning or 'none'}")
        lines.append(f"budgets {self.budgets}; receiver {self.receiver}; {self.profile or 'no profile'}")
        lines.append(f"it begins {self.late_s:g} s later than usual")
        lines.append(f"rates {self.rates} in {self.window_s} s; control collects: {self.collects}")
        lines += map(str, (*self.jobs, *self.deeds))
        return "\n".join([*lines, *map(str, self.faults)])


def scenario(seed: int, *, calls: int = 250, faults: int = 25, over: float = 1.0, plain: bool = False) -> Scenario:
    """Draw it: about so many calls, at most so many faults, over so many times the usual time. `plain`: whatever its
    seed, it is about nothing in particular (see `profiles`)."""
    drawn = random.Random(f"{seed}/scenario")
    over_s = over * drawn.uniform(4.0, 15.0)
    nodes, workers = drawn.choices((1, 2, 3), (6, 3, 1))[0], drawn.choice((1, 1, 2))
    kinds = dict(EVERYDAY)
    if drawn.random() < 0.4:
        kinds |= FORGETFUL
    for kind in list(kinds):  # each seed has a character of its own
        if drawn.random() < 0.4:
            del kinds[kind]
    kinds = kinds or {"kill": 1}
    more = random.Random(f"{seed}/budgets and webhook")
    settings, budgets = _settings(drawn), []
    if more.random() < 0.5:
        budgets.append({"unit": "tokens", "limit": more.randrange(100, 4_000)})
        if more.random() < 0.5:
            budgets.append({"unit": "input_tokens", "limit": more.randrange(50, 800), "track": "*"})
        settings["budget"] = {"on_unavailable": more.choice(("refuse", "refuse", "slice")), "slice_percent": 5.0}
    if more.random() < 0.4:
        form = more.choice(("segments", "cloudevents"))
        settings["webhook"] = {"url": "http://localhost:2/", "format": form, "idle_s": more.choice((1.0, 4.0))}
    number, workspaces = max(1, int(calls * drawn.uniform(0.5, 1.5))), drawn.choice((1, 2, 5))
    rates, window_s, away = draw_rates(seed, number, over_s)
    if away:
        settings["budget"] = {"slice_percent": 5.0, "on_unavailable": away, **settings.get("budget", {})}
    if parts := random.Random(f"{seed}/split").choice((0, 0, 2, 3, 8)):
        settings["redis"] = {"split": {f"w{n}": parts for n in range(workspaces)}}  # those that have no budget
    jobs, collects = draw_jobs(seed, over_s, workspaces)
    plan = Scenario(
        seed=seed,
        calls=plans(drawn, number, over_s, workspaces),
        jobs=jobs,
        collects=collects,
        rates=rates,
        window_s=window_s,
        deeds=draw_deeds(seed, over_s, nodes, workspaces, jobs=bool(jobs)),
        faults=sorted(
            draw(drawn, drawn.randrange(faults + 1), over_s, nodes, workers, kinds) + machines.draw(seed, over_s, nodes)
        ),
        nodes=nodes,
        workers=workers,
        settings=settings,
        tuning={name: drawn.choice(sizes) for name, sizes in TUNING.items() if drawn.random() < 0.4},
        over_s=over_s,
        budgets=budgets,
        receiver=[
            (more.random() * over_s, more.choice(("down", "refuses", "loses the answer")))
            for _ in range(more.randrange(6))
        ],
    )
    if plain:
        return plan
    plan = by_period(profiled(written_anew(forgotten(plan))))
    return struck(with_keys(paths.refusing(leaving.lost(leaving.departing(plan)))))


def _settings(drawn: random.Random) -> dict[str, Any]:
    return {
        "journal": {
            "fsync": drawn.choices(("interval", "always", "never"), (5, 2, 1))[0],
            "roll_bytes": drawn.choice((4_000, 30_000, 1 << 26)),
            "on_error": drawn.choices(("pass", "refuse"), (3, 1))[0],
            "buffer_records": drawn.choice((2, 20, 10_000)),
            "keep_s": drawn.choice((0.0, 3.0, 3_600.0)),
        },
    }
