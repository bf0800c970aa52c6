"""What a budget is about, and what a record spends of it, worked out anew from docs/limits.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from simulation.audit.journals import Said
from simulation.audit.sums import of

Budget = dict[str, Any]

WINDOW_S, GRAIN_S = 60, 2
"""Of `rolling 1m`, the only window there is; a bucket is at most a 24th of it."""
NO_REQUESTS = ("refused", "interrupted")


def period(budget: Budget) -> str:
    """As it is written."""
    return str(budget.get("period", "total"))


def rolling(budget: Budget) -> bool:
    """Whether it is of a window that moves on."""
    return period(budget).startswith("rolling")


def hard(budget: Budget) -> bool:
    """Whether calls beyond it are refused."""
    return bool(budget.get("mode", "hard") == "hard")


def dimension(budget: Budget) -> str:
    """What it tells calls apart by; "": it is about all of the workspace."""
    return next((name for name in ("key_id", "track") if budget.get(name)), "")


def value(budget: Budget, said: Mapping[str, str | None]) -> str | None:
    """Whose part of it a call of this track and key uses ("": there is one for all); None: it is not about it."""
    name = dimension(budget)
    if not name:
        return ""
    found = said.get(name)
    return found if found and budget[name] in ("*", found) else None


def each(budget: Budget) -> bool:
    """Whether every value of the dimension has a part of its own."""
    return bool(budget.get(dimension(budget)) == "*")


def start_s(budget: Budget, at_us: int) -> int:
    """When (s since epoch) the period began, or the bucket of a window, in which something ended."""
    at_s = at_us // 1_000_000
    if rolling(budget):
        return at_s // GRAIN_S * GRAIN_S
    if period(budget) == "month":
        return int(datetime.fromtimestamp(at_s, UTC).replace(day=1, hour=0, minute=0, second=0).timestamp())
    length_s = {"minute": 60, "hour": 3_600, "day": 86_400}.get(period(budget))
    return 0 if length_s is None else at_s // length_s * length_s


def used(said: Said, unit: str) -> int:
    """What a record used of it."""
    operation = of(said, "operation")
    if of(said, "kind") != "usage":
        return 0
    if unit == "requests":
        return int(of(said, "attempt") == 1 and said["outcome"] not in NO_REQUESTS)
    if operation == "other":
        return 0
    came = said.get("input_tokens") or 0
    went = (said.get("output_tokens") or 0) if operation == "llm" else 0
    return {"tokens": came + went, "input_tokens": came, "output_tokens": went}[unit]


def charged(said: Said, unit: str) -> int:
    """What is charged for it, as it is not known; below 0 where that is let go."""
    if unit == "requests":
        sure = said["outcome"] != "interrupted" or of(said, "kind") != "usage" or of(said, "attempt") != 1
        return 0 if sure else int(said.get("charged_tokens") is not None or said.get("charged_cost_nusd") is not None)
    return int(said.get({"tokens": "charged_tokens"}.get(unit, f"charged_{unit}")) or 0)


def concerned(budget: Budget, records: Iterable[Said]) -> list[tuple[int, str, Said]]:
    """The records it is about, with the beginning of their periods and whose parts they use."""
    found = []
    for said in records:
        whose = value(budget, said) if said["workspace"] == "w0" else None
        if whose is not None:
            found.append((start_s(budget, said["ended_at"]), whose, said))
    return found
