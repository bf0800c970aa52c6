"""Our own figures of a range of days, from history: by day, model and what the comparison tells apart beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from taximeter.reconcile.rule import Ours, Place, day_of
from taximeter.reconcile.told import By, Span
from taximeter.sinks.query import Filters, Group, Window

US = 1_000_000
_NAMES: dict[By, tuple[str, ...]] = {"": (), "upstream": (), "key": ("key_id",), "workspace": ("workspace",)}


INPUTS = {"llm": "llm_input_tokens", "embedding": "embedding_tokens", "rerank": "rerank_tokens"}
"""Operation -> the sum of its input."""


class Sums(Protocol):
    """History's part (sinks.history.sink.History)."""

    async def usage(
        self, filters: Filters, group_by: Sequence[str] = (), window: Window | None = None, tz: str = "UTC"
    ) -> list[Group]: ...

    async def by_upstream(self, filters: Filters, group_by: Sequence[str], window: Window) -> list[Group]: ...


async def ours(
    history: Sums, span: Span, by: By, *, provider: str, upstreams: Collection[str] = (), counted: Collection[str]
) -> dict[Place, Ours]:
    """By place. `provider` "": all; `upstreams`: only calls of these, none named: of all; `counted`: the operations
    whose tokens the provider tells (costs it tells of all). Raises HistoryUnavailable.
    """
    filters = Filters(from_us=span.from_s * US, to_us=span.to_s * US, provider=provider or None)
    names = ("model", *_NAMES[by])
    if upstreams or by == "upstream":
        groups = await history.by_upstream(filters, names, "day")
        groups = [each for each in groups if not upstreams or each.key["upstream"] in upstreams]
    else:
        groups = await history.usage(filters, names, "day")
    found: dict[Place, list[Group]] = {}
    for each in groups:
        key = "" if not by else each.key["upstream" if by == "upstream" else names[-1]] or ""
        place = Place(day_of((each.start_us or 0) // US), each.key["model"] or "", key)
        found.setdefault(place, []).append(each)
    return {place: _summed(each, counted) for place, each in found.items()}


def over_models(found: Mapping[Place, Ours]) -> dict[Place, Ours]:
    """The same of all models together, as a provider tells them that does not tell models apart."""
    merged: dict[Place, list[Ours]] = {}
    for place, each in found.items():
        merged.setdefault(place._replace(model=""), []).append(each)
    return {place: added(each) for place, each in merged.items()}


def added(parts: Sequence[Ours]) -> Ours:
    """Several as one; a figure that none of them knows stays unknown."""
    whole = Ours()
    for part in parts:
        whole.add({name: getattr(part, name) for name in Ours.__struct_fields__})
    return whole


def _summed(groups: Sequence[Group], counted: Collection[str]) -> Ours:
    """A sum to which no call gave anything, while some should have, is not known: None, and no 0."""
    totals = [each.totals for each in groups]
    unknown = sum(each.unknown_requests for each in totals)
    unpriced = sum(each.unpriced_requests for each in totals)
    used = sum(each.total_tokens for each in totals)
    cost_nusd = sum(each.cost_nusd for each in totals)
    known = bool(used) or not unknown
    inputs = sum(getattr(each, INPUTS[operation]) for each in totals for operation in counted)
    return Ours(
        input_tokens=inputs if known else None,
        cached_input_tokens=sum(each.llm_cached_input_tokens for each in totals) if known else None,
        cache_write_input_tokens=sum(each.llm_cache_write_input_tokens for each in totals) if known else None,
        output_tokens=sum(each.llm_output_tokens for each in totals) if known else None,
        cost_nusd=cost_nusd if cost_nusd or not (unknown or unpriced) else None,
        requests=sum(each.details.attempts - each.details.refused for each in groups),
        unknown_requests=unknown,
        unpriced_requests=unpriced,
        own_count_tokens=sum(each.counted_tokens + each.estimated_tokens for each in totals),
    )
