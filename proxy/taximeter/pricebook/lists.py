"""Which price applies to a call: all sources of prices, and the order in which they are asked. Pure.

Which price applies (docs/design.md §9), to the served model at the time the call ended:
1. the operator's price file, for the provider's name as configured: the served model, then the name asked for; exact
   before pattern;
2. the price file that comes with Taximeter, likewise;
3. the per-1K environment variables, for every LLM and embedding call;
4. genai-prices, where the provider is one it lists: the served model.
A gateway or an unknown provider has no list: its calls have a price only by 1 to 3. A service tier, speed or region
that is priced apart and has no listed price has none; so has a call of which a figure its price needs is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import msgspec

from taximeter.core.prices import Card, Schedule, Span, Why, card_at
from taximeter.core.record import Operation, Record
from taximeter.pricebook.catalog import Catalog, Declared, Listed, Publisher
from taximeter.pricebook.changes import ANYWHERE, in_region, with_fees
from taximeter.pricebook.names import billed_as, provider_name, served_model, spellings
from taximeter.pricebook.shown import card_as_dict, listed_as_dicts


class PriceLists:
    """The sources of a compiled catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._lists = {publisher.id: _Index(publisher) for publisher in catalog.publishers}

    def schedules(
        self,
        provider: str,
        asked: str | None,
        answered: str | None,
        reported_tier: str | None,
        speed: str | None,
        region: str | None,
        operation: Operation,
    ) -> tuple[Schedule, ...]:
        """The schedules that may apply to a call, strongest first."""
        provider = provider_name(provider)
        tier = billed_as(provider, reported_tier, speed, asked)
        schedules: list[Schedule] = []
        model = served_model(provider, asked, answered)
        names = list(dict.fromkeys(name for name in (model, answered, asked) if name))
        for name in names:
            schedules += _declared(self.catalog.declared, provider, name, tier)
        for name in names:
            shipped = _declared(self.catalog.shipped, provider, name, tier)
            schedules += (self._changed(each, provider, name, region) for each in shipped)
        env = {Operation.LLM: self.catalog.env_llm, Operation.EMBEDDING: self.catalog.env_embedding}.get(operation)
        if env is not None:
            schedules.append((Span(0, (env,)),))
        listed = self._listed(provider, model, tier) if model else None
        if listed is not None and model:
            schedules.append(self._changed(listed, provider, model, region))
        return tuple(schedules)

    def missing(self, record: Record) -> Why:
        """What it is about a call that has no price: the first of all that change one without which there is a card."""
        told = (record.service_tier, record.speed, record.region)
        for known, why in (
            ((None, None, None), Why.MODEL_WITHOUT_PRICE),
            ((told[0], None, None), Why.SERVICE_TIER_WITHOUT_PRICE),
            ((told[0], told[1], None), Why.SPEED_WITHOUT_PRICE),
        ):
            schedules = self.schedules(
                record.provider, record.request_model, record.response_model, *known, record.operation
            )
            if self.card(record, schedules) is None:
                return why
        return Why.REGION_WITHOUT_PRICE

    def _changed(self, schedule: Schedule, provider: str, model: str, region: str | None) -> Schedule:
        """A list price with the fees that it does not state, as it is in the region told."""
        names = tuple(spellings(provider, model))
        fees = [fee for fee in self.catalog.fees if fee.provider == provider]
        if fees:
            schedule = with_fees(schedule, fees, names)
        if region is None or region.lower() in ANYWHERE:
            return schedule
        rules = [rule for rule in self.catalog.regions if rule.provider == provider]
        return in_region(schedule, rules, names, region.lower())

    def card(self, record: Record, schedules: tuple[Schedule, ...]) -> Card | None:
        """The card a call is priced by, or None."""
        for schedule in schedules:
            card = card_at(schedule, record.ended_at)
            if card is not None:
                return card if card.same_as is None else self._same_as(card, card.same_as, record)
        return None

    def tiers(self, provider: str, model: str) -> set[str]:
        """Every tier in which a model is listed."""
        provider = provider_name(provider)
        names = tuple(spellings(provider, model))
        stated = (*self.catalog.declared, *self.catalog.shipped)
        declared = [e.listed for e in stated if e.provider == provider and any(map(e.matches, names))]
        found = self.entry(provider, model)
        return {"", *(tier for listed in (*declared, found) if listed is not None for tier in listed.tiers)}

    def entry(self, provider: str, model: str) -> Listed | None:
        """A model in its provider's list, or in the one that applies instead."""
        index = self._lists.get(provider)
        if index is None:
            return None
        for name in spellings(provider, model):
            for each in (provider, *index.instead):
                found = self._lists[each].find(name) if each in self._lists else None
                if found is not None:
                    return found
        return None

    def cards(self) -> Iterator[dict[str, object]]:
        """Every card, strongest source first: provider, model, service_tier, from, hours and its rates in USD."""
        for entry in (*self.catalog.declared, *self.catalog.shipped):
            yield from listed_as_dicts(entry.provider, entry.listed)
        for operation, card in (("llm", self.catalog.env_llm), ("embedding", self.catalog.env_embedding)):
            if card is not None:
                yield {"provider": "*", "model": "*", "service_tier": "*", "operation": operation, **card_as_dict(card)}
        for publisher in self.catalog.publishers:
            for listed in publisher.models:
                yield from listed_as_dicts(publisher.id, listed)

    def _same_as(self, card: Card, target: tuple[str, str], record: Record) -> Card | None:
        """The list price a prices.toml entry points to; its ref names both."""
        provider, model = target
        tier = billed_as(provider, record.service_tier, record.speed, None)
        name = record.model if model == "*" else model
        schedule = self._listed(provider, name, tier)
        if schedule is not None:
            schedule = self._changed(schedule, provider, name, record.region)
        found = None if schedule is None else card_at(schedule, record.ended_at)
        return None if found is None else msgspec.structs.replace(found, ref=f"{card.ref}={found.ref}")

    def _listed(self, provider: str, model: str, tier: str) -> Schedule | None:
        """genai-prices' schedule. Another provider's list applied instead has list prices only."""
        index = self._lists.get(provider)
        if index is None:
            return None
        for name in spellings(provider, model):
            found = index.find(name)
            if found is not None:
                return found.tiers.get(tier)
            for other in index.instead:
                found = self._lists[other].find(name) if other in self._lists else None
                if found is not None:
                    return None if tier else found.tiers.get("")
        return None


class _Index:
    """One provider's list by name: equality in a dictionary, the other rules in order. Made at first use."""

    def __init__(self, publisher: Publisher) -> None:
        self.models = publisher.models
        self.instead = publisher.instead
        self._others: list[int] = []

    def find(self, name: str) -> Listed | None:
        """The first entry that matches a lower-case name."""
        found = self._equal.get(name, len(self.models))
        for at in self._others:
            if at > found:
                break
            rule = self.models[at].rule
            if rule is not None and rule.matches(name):
                return self.models[at]
        return self.models[found] if found < len(self.models) else None

    @cached_property
    def _equal(self) -> dict[str, int]:
        equal: dict[str, int] = {}
        for at, listed in enumerate(self.models):
            exact = None if listed.rule is None else listed.rule.exact()
            if exact is None:
                self._others.append(at)
            for name in exact or ():
                equal.setdefault(name, at)
        return equal


def _declared(entries: list[Declared], provider: str, model: str, tier: str) -> Iterator[Schedule]:
    """A price file's schedules for a name, strongest first."""
    names = tuple(spellings(provider, model))
    for entry in entries:
        if entry.provider != provider or not any(map(entry.matches, names)):
            continue
        tiers = entry.listed.tiers
        if tier in tiers:
            yield tiers[tier]
        elif "" in tiers:
            yield tuple(_in_any_tier(span) for span in tiers[""])


def _in_any_tier(span: Span) -> Span:
    """Of a list price only what holds in every service tier: that the model is free, or costs what another does."""
    cards = tuple(card if card is not None and (card.free or card.same_as is not None) else None for card in span.cards)
    return Span(span.from_us, cards, span.starts_s)
