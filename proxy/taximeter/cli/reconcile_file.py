"""`reconcile FILE`: our tokens and cost against a provider's own export, by day and model."""

from __future__ import annotations

import msgspec

from taximeter.cli.backend import Backend
from taximeter.cli.show import console, count, table
from taximeter.control.answers.responses import UsageAggregateResponse
from taximeter.core.times import shown
from taximeter.reconcile import exports
from taximeter.reconcile.exports import DayModel, Reconciliation
from taximeter.reconcile.rule import Figures


def compared(
    backend: Backend, content: bytes, provider: str, workspace: tuple[str, ...], operations: tuple[str, ...]
) -> tuple[Reconciliation, bool]:
    """What the comparison found, and whether all that had ended was in it. Raises BadRequest on no export."""
    export = exports.read(content)
    models = exports.by_model(export)
    params = {
        "from": [shown(export.start_s * 1_000_000) or ""],
        "to": [shown(export.end_s * 1_000_000) or ""],
        "provider": [provider],
        "window": ["day"],
        **({"group_by": ["model"]} if models else {}),
        **({"operation": sorted(operations or export.operations)} if operations or export.operations else {}),
        **({"workspace": list(workspace)} if workspace else {}),
    }
    answer = msgspec.json.decode(backend.usage(params), type=UsageAggregateResponse)
    mine = {key: each for key, each in _ours(answer, models=models).items() if _used(each)}
    return exports.compare(export, mine), answer.complete


def _used(each: Figures) -> bool:
    """Not the days and models of calls that used nothing: no export lists them."""
    return any(getattr(each, name) for name in exports.COMPARED)


def _ours(answer: UsageAggregateResponse, *, models: bool) -> dict[DayModel, Figures]:
    """Our own figures from `GET /usage?window=day`: input of every operation, output of LLM calls."""
    found: dict[DayModel, Figures] = {}
    for part in answer.series:
        usage = part.usage
        key = str(part.start)[:10], (str(part.model) if isinstance(part.model, str) else "unknown") if models else None
        found.setdefault(key, Figures()).add(
            {
                "input_tokens": usage.llm.input_tokens + usage.embedding.input_tokens + usage.rerank.input_tokens,
                "cached_input_tokens": usage.llm.cached_input_tokens,
                "output_tokens": usage.llm.output_tokens,
                "requests": usage.requests,
                "cost_nusd": None if part.estimated_cost_usd is None else int(part.estimated_cost_usd * 10**9),
            }
        )
    return found


def show_file(found: Reconciliation) -> None:
    """For people."""
    out = console()
    out.print(f"From {found.from_} until before {found.to}")
    rows = [
        (each.day, each.model or "all", each.figure, count(each.ours), count(each.theirs), f"{each.difference:+,}")
        for each in found.differences
    ]
    if rows:
        out.print()
        out.print(table(["Day", "Model", "Figure"], ["Ours", "Provider's", "Difference"], rows))
        out.print()
    sums = [
        (name, count(getattr(found.ours, name)), count(getattr(found.theirs, name)))
        for name in (*exports.COMPARED, "requests")
        if getattr(found.theirs, name) is not None
    ]
    out.print(table(["In all"], ["Ours", "Provider's"], sums))
    agreeing = found.compared - found.differing
    out.print(f"{agreeing} of {found.compared} days and models agree")
