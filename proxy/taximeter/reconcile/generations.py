"""Both sides of single calls: what OpenRouter says of each generation that our records name. It knows no other calls,
so what never passed here cannot be seen this way; what a call cost is seen to the call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from taximeter.config.settings import ReconcileSettings
from taximeter.core.record import Record
from taximeter.reconcile import openrouter
from taximeter.reconcile.asking import Asker
from taximeter.reconcile.ours import US
from taximeter.reconcile.rule import Figures, Ours, Place, day_of
from taximeter.reconcile.told import Span
from taximeter.sinks.query import Filters

PREFIX = "gen-"
"""How OpenRouter's ids begin."""
PAGE = 500


class Records(Protocol):
    """History's part (sinks.history.sink.History)."""

    async def events(
        self, filters: Filters, limit: int = 100, page: str | None = None
    ) -> tuple[list[Record], str | None]: ...


async def both(
    asker: Asker, history: Records, span: Span, settings: ReconcileSettings, provider: str, upstreams: frozenset[str]
) -> tuple[dict[Place, Figures], dict[Place, Ours]]:
    """What they and we say of the newest calls, at most `most_generations`; one that they do not know is ours only.

    Raises PullFailed, HistoryUnavailable.
    """
    theirs: dict[Place, Figures] = {}
    ours: dict[Place, Ours] = {}
    filters = Filters(from_us=span.from_s * US, to_us=span.to_s * US, provider=provider or None, kind="usage")
    left = settings.most_generations
    async for record in _named(history, filters, upstreams):
        if not left:
            break
        left -= 1
        key = {"": "", "upstream": record.upstream, "key": record.key_id, "workspace": record.workspace}[settings.by]
        place = Place(day_of(record.ended_at // US), record.model, key or "")
        told = await openrouter.generation(asker, record.upstream_request_id or "")
        if told is not None:
            theirs.setdefault(place, Figures()).add(told)
        _add(ours.setdefault(place, Ours()), record)
    return theirs, ours


async def _named(history: Records, filters: Filters, upstreams: frozenset[str]) -> AsyncIterator[Record]:
    page: str | None = None
    while True:
        records, page = await history.events(filters, PAGE, page)
        for record in records:
            if (record.upstream_request_id or "").startswith(PREFIX) and (
                not upstreams or record.upstream in upstreams
            ):
                yield record
        if page is None:
            return


def _add(whole: Ours, record: Record) -> None:
    known = record.input_tokens is not None or record.output_tokens is not None
    whole.add(
        {
            "input_tokens": record.input_tokens,
            "cached_input_tokens": (record.cached_input_tokens or 0) if known else None,
            "output_tokens": (record.output_tokens or 0) if known else None,
            "cost_nusd": record.cost_nusd,
            "requests": 1,
        }
    )
    whole.unknown_requests += not known
    whole.unpriced_requests += known and record.cost_nusd is None
