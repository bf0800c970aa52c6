"""What a record adds to which sum, worked out anew from docs/design.md (section 5): nothing of the product's is used.

A record is a dict here, a sum a Counter by the names that Redis' fields and the roll-ups' columns have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from simulation.audit.journals import DEFAULTS, Said

Sums = dict[Any, dict[str, int]]

QUARTER_S, HOUR_S, DAY_S = 900, 3_600, 86_400
PLAIN = (
    "audio_input_tokens", "image_input_tokens", "audio_output_tokens", "accepted_prediction_tokens",
    "rejected_prediction_tokens", "embedding_inputs", "rerank_documents",
)  # fmt: skip
DETAILS = ("attempts", "corrections", "refused", *PLAIN, "audio_ms", "duration_us")
"""What the roll-ups keep and Redis does not."""


def of(said: Said, name: str) -> Any:
    """A member of a record, or what stands for it."""
    return said.get(name, DEFAULTS.get(name))


def model(said: Said) -> str:
    return said.get("response_model") or said.get("request_model") or "unknown"


def adds(said: Said) -> Counter[str]:
    """Everything one record adds, zeros left out; worked out once, as it is asked for by some twenty sums."""
    try:
        return said.sums
    except AttributeError:
        said.sums = Counter({name: amount for name, amount in _adds(said).items() if amount})
        return said.sums


def _adds(said: Said) -> Counter[str]:
    found: Counter[str] = Counter()
    kind, operation, outcome = of(said, "kind"), of(said, "operation"), said["outcome"]
    found["cost_nusd"] = said.get("cost_nusd") or 0
    if kind == "correction":
        found["corrections"] = 1
        found["unpriced_requests"] = -1 if of(said, "input_source") != "none" else 0
    if kind != "usage":
        return found
    if of(said, "attempt") == 1:
        found["requests"] = found[f"{operation}_requests"] = 1
    found["attempts"] = 1
    found["errors"] = int(outcome not in ("ok", "client_left"))
    found["refused"] = int(outcome == "refused")
    for name in (*PLAIN, "search_units"):
        found[name] = said.get(name) or 0
    found["audio_ms"] = round((said.get("seconds") or 0) * 1_000)
    found["duration_us"] = round((said.get("duration_ms") or 0) * 1_000)
    _usage(found, said, operation, outcome)
    return found


def _usage(found: Counter[str], said: Said, operation: str, outcome: str) -> None:
    source = of(said, "input_source")
    figures = [said.get(name) for name in ("input_tokens", "output_tokens", "search_units", "seconds")]
    pieces = [said.get(name) for name in ("seconds", "images", "input_characters", "pages", "video_seconds")]
    if operation == "other":
        known = source not in ("none", "deferred") or any(each is not None for each in pieces)
        found["unpriced_requests"] = int(known and said.get("cost_nusd") is None)
        return
    if all(each is None for each in figures):
        billed = outcome not in ("refused", "upstream_error", "upstream_unreachable")
        found["unknown_requests"] = int(billed and source != "deferred")
        return
    found["unpriced_requests"] = int(said.get("cost_nusd") is None)
    came, went = figures[0] or 0, (figures[1] or 0) if operation == "llm" else 0
    if operation == "llm":
        found |= Counter(
            {
                "llm_input_tokens": came,
                "llm_output_tokens": went,
                "llm_cached_input_tokens": said.get("cached_input_tokens") or 0,
                "llm_cache_write_input_tokens": said.get("cache_write_input_tokens") or 0,
                "llm_reasoning_output_tokens": said.get("reasoning_output_tokens") or 0,
            }
        )
    else:
        found[f"{operation}_tokens"] = came
    found["total_tokens"] = came + went
    for amount, told in ((came, source), (went, of(said, "output_source"))):
        if told != "reported":
            found["counted_tokens" if told == "counted" else "estimated_tokens"] += amount


def total(records: Sequence[Said], *, details: bool = True) -> dict[str, int]:
    """What records, one at least, come to together, without zeros."""
    first, *others = records
    cell: dict[str, int] = dict(adds(first))
    for said in others:
        for name, amount in adds(said).items():
            cell[name] = cell.get(name, 0) + amount
    return {name: amount for name, amount in cell.items() if amount and (details or name not in DETAILS)}


def fold(records: Iterable[Said], key: Callable[[Said], Any]) -> Sums:
    """The sums by what `key` says of a record; None: it belongs to none. Sums of nothing are left out."""
    parts: dict[Any, list[Said]] = {}
    for said in records:
        if (where := key(said)) is not None:
            parts.setdefault(where, []).append(said)
    return {where: sums for where, those in parts.items() if (sums := total(those))}


def start_s(at_us: int, length: str) -> int:
    """When (s since epoch) the quarter, hour, day or month of a moment began."""
    return began_s(at_us // 1_000_000, length)


@lru_cache(1_000)
def began_s(at_s: int, length: str) -> int:
    """The same of a moment in seconds."""
    if length == "month":
        return int(datetime.fromtimestamp(at_s, UTC).replace(day=1, hour=0, minute=0, second=0).timestamp())
    return at_s - at_s % {"quarter": QUARTER_S, "hour": HOUR_S, "day": DAY_S}[length]


def named(at_us: int, form: str) -> str:
    """A moment's hour, day or month, as Redis' keys have it."""
    return _named(at_us // 1_000_000, form)


@lru_cache(1_000)
def _named(at_s: int, form: str) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime(form)


def merged(sums: Sequence[tuple[Any, dict[str, int]]]) -> Sums:
    """Sums by key, those of one key together; without zeros."""
    cells: dict[Any, dict[str, int]] = {}
    for key, cell in sums:
        there = cells.get(key)
        if there is None:
            cells[key] = dict(cell)
        else:
            for name, amount in cell.items():
                there[name] = there.get(name, 0) + amount
    return {key: found for key, cell in cells.items() if (found := {name: n for name, n in cell.items() if n})}
