"""Prices of calls that have not been made: which card a model has now, and what a call may cost at most."""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.dearest import Most, dearest_nusd
from taximeter.core.prices import Card
from taximeter.core.record import Open, Operation, Outcome, Record
from taximeter.pricebook.book import PriceBook
from taximeter.pricebook.names import provider_name

LONG_CONTEXT_TOKENS = 1_000_000
"""The window of a model that is listed with a shorter one and with a price for prompts beyond it (Claude Sonnet 4)."""


class Beforehand:
    """By one book."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book

    def card(self, provider: str, model: str, at_us: int) -> Card | None:
        """The card of an LLM call to this model in the usual service tier at that time (µs), or None."""
        call = Open(
            request_id="",
            started_at=at_us,
            workspace="",
            upstream="",
            provider=provider,
            api="chat",
            operation=Operation.LLM,
        )
        return self._book.find(_asking(call, model, None))

    def context_tokens(self, provider: str, model: str, *, longest: bool = True) -> int | None:
        """A model's context window, or None where none is listed.

        A price for longer prompts says that there is a longer one than listed; `longest` False: it was not asked for.
        """
        found = self._book.lists.entry(provider_name(provider), model)
        if found is None or found.context_tokens is None or not longest:
            return None if found is None else found.context_tokens
        cards = (card for spans in found.tiers.values() for span in spans for card in span.cards if card is not None)
        last = max((start for card in cards for start, _ in card.above), default=0)
        return max(found.context_tokens, LONG_CONTEXT_TOKENS if last >= found.context_tokens else 0)

    def dearest_nusd(
        self, call: Open, models: Iterable[str], tiers: Iterable[str] | None, most: Most
    ) -> tuple[int, bool]:
        """The most that a call of any of these models may cost in any of these tiers (None: in every one listed).

        And whether all of them have a price: the figure is of those that do.
        """
        worst, priced = 0, True
        for model in models:
            costs = []
            for tier in self._book.lists.tiers(call.provider, model) if tiers is None else tiers:
                for region in self._regions(call):
                    record = _asking(call, model, tier, region)
                    card = self._book.find(record)
                    if card is not None:
                        costs.append(dearest_nusd(card, most))
            worst, priced = max([worst, *costs]), priced and bool(costs)
        return worst, priced

    def _regions(self, call: Open) -> tuple[str | None, ...]:
        """Where it may run: what answers alone tell (Anthropic's `inference_geo`, also a workspace's default) may be
        any region there is a price for."""
        provider = provider_name(call.provider)
        if call.region is not None or provider not in _TOLD_BY_ANSWER:
            return (call.region,)
        return (None, *(rule.region for rule in self._book.lists.catalog.regions if rule.provider == provider))


_TOLD_BY_ANSWER = frozenset(("anthropic",))


def _asking(call: Open, model: str, tier: str | None, region: str | None = None) -> Record:
    """A call of this model that is about to be sent, as a record to be priced."""
    return Record(
        request_id=call.request_id,
        started_at=call.started_at,
        ended_at=call.started_at,
        workspace=call.workspace,
        upstream=call.upstream,
        provider=call.provider,
        api=call.api,
        operation=call.operation,
        request_model=model,
        response_model=model,
        service_tier=tier,
        region=region,
        outcome=Outcome.OK,
    )
