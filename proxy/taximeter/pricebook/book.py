"""Looks up the price of a call: one dictionary look-up and integer arithmetic, about 2 µs. Loads the compiled file.

Which price applies (docs/design.md §9), to the served model at the time the call ended:
1. the operator's price file, for the provider's name as configured: the served model, then the name asked for; exact
   before pattern;
2. the price file that comes with Taximeter, likewise;
3. the per-1K environment variables, for every LLM and embedding call;
4. genai-prices, where the provider is one it lists: the served model.
A gateway or an unknown provider has no list: its calls have a price only by 1 to 3. A service tier that is priced
apart and has no listed price has none; so has a call of which a figure its price needs is unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import msgspec

from taximeter.core.errors import ConfigError
from taximeter.core.prices import Card, Most, Plain, Schedule, Span, card_at, cost_nusd, dearest_nusd, plain
from taximeter.core.record import IMPOSSIBLE, Open, Operation, Outcome, Record
from taximeter.pricebook.catalog import FORMAT, Catalog, Declared, Listed, Publisher
from taximeter.pricebook.names import provider_name, served_model, spellings, tier_name
from taximeter.pricebook.shown import card_as_dict, listed_as_dicts

_log = logging.getLogger("taximeter.prices")

_REMEMBERED = 4_096
"""Names kept resolved; beyond it all are forgotten, so made-up model names cannot fill the memory."""
_WARNED = 1_000
"""Most models warned about; one line each."""
_SENT = frozenset(Outcome) - {Outcome.REFUSED, Outcome.UPSTREAM_UNREACHABLE}

LONG_CONTEXT_TOKENS = 1_000_000
"""The window of a model that is listed with a shorter one and with a price for prompts beyond it (Claude Sonnet 4)."""

Key = tuple[str, str | None, str | None, str | None, Operation]


class Chain(NamedTuple):
    """The schedules that may apply to a call, strongest first; and the first as a Plain, where it is one."""

    schedules: tuple[Schedule, ...]
    plain: Plain | None


class PriceBook:
    """Prices for calls. Not thread-safe; cheap to load, one per process."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._lists = {publisher.id: _Index(publisher) for publisher in catalog.publishers}
        self._chains: dict[Key, Chain] = {}
        self._warned: set[tuple[str, str, str]] = set()

    @classmethod
    def load(cls, path: Path) -> PriceBook:
        """From a file `compile_prices` wrote. Raises ConfigError where it is missing or of another version."""
        try:
            catalog = _DECODER.decode(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: the compiled prices cannot be read: {error}. They are made at start.") from None
        if catalog.format != FORMAT:
            raise ConfigError(f"{path}: compiled by another version (format {catalog.format}); start again.")
        return cls(catalog)

    def cost(self, record: Record) -> tuple[int | None, str | None]:
        """(cost in nano-USD, price_ref) of a call, both None where it has no price or its usage is not known."""
        if record.cost_note == IMPOSSIBLE:
            return None, None
        chain = self._chain(record)
        if chain.plain is not None:
            nusd = chain.plain.cost_nusd(record)
            if nusd is not None:
                return nusd, chain.plain.ref
        card = self._card(record, chain)
        if card is None:
            if record.outcome in _SENT and (record.input_tokens is not None or record.search_units is not None):
                self._warn(record)
            return None, None
        nusd = cost_nusd(card, record)
        return (None, None) if nusd is None else (nusd, card.ref)

    def explain(self, record: Record) -> dict[str, object] | None:
        """The card a call would be priced by, as `cards` shows it, or None; the record needs no usage."""
        card = self._card(record, self._chain(record))
        return None if card is None else card_as_dict(card)

    def card(self, provider: str, model: str, at_us: int) -> Card | None:
        """The card of an LLM call to this model in the usual service tier at that time (µs), or None."""
        record = Record(
            request_id="",
            started_at=at_us,
            ended_at=at_us,
            workspace="",
            upstream="",
            provider=provider,
            api="chat",
            operation=Operation.LLM,
            response_model=model,
            request_model=model,
            outcome=Outcome.OK,
        )
        return self._card(record, self._chain(record))

    def context_tokens(self, provider: str, model: str, *, longest: bool = True) -> int | None:
        """A model's context window, or None where none is listed.

        A price for longer prompts says that there is a longer one than listed; `longest` False: it was not asked for.
        """
        found = self._entry(provider_name(provider), model)
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
            for tier in self._tiers(call.provider, model) if tiers is None else tiers:
                record = _asking(call, model, tier)
                card = self._card(record, self._chain(record))
                if card is not None:
                    costs.append(dearest_nusd(card, most))
            worst, priced = max([worst, *costs]), priced and bool(costs)
        return worst, priced

    def _tiers(self, provider: str, model: str) -> set[str]:
        """Every tier in which a model is listed."""
        provider = provider_name(provider)
        names = tuple(spellings(provider, model))
        stated = (*self.catalog.declared, *self.catalog.shipped)
        declared = [e.listed for e in stated if e.provider == provider and any(map(e.matches, names))]
        found = self._entry(provider, model)
        return {"", *(tier for listed in (*declared, found) if listed is not None for tier in listed.tiers)}

    def _entry(self, provider: str, model: str) -> Listed | None:
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

    def _chain(self, record: Record) -> Chain:
        key = (
            record.provider,
            record.request_model,
            record.response_model,
            record.service_tier,
            record.operation,
        )
        chain = self._chains.get(key)
        if chain is None:
            chain = self._resolved(key)
            if len(self._chains) >= _REMEMBERED:
                self._chains.clear()
            self._chains[key] = chain
        return chain

    def _card(self, record: Record, chain: Chain) -> Card | None:
        for schedule in chain.schedules:
            card = card_at(schedule, record.ended_at)
            if card is not None:
                return card if card.same_as is None else self._same_as(card, card.same_as, record)
        return None

    def _resolved(self, key: Key) -> Chain:
        provider, asked, answered, reported_tier, operation = key
        provider = provider_name(provider)
        tier = tier_name(provider, reported_tier)
        schedules: list[Schedule] = []
        model = served_model(provider, asked, answered)
        names = list(dict.fromkeys(name for name in (model, answered, asked) if name))
        for entries in (self.catalog.declared, self.catalog.shipped):
            for name in names:
                schedules += _declared(entries, provider, name, tier)
        env = {Operation.LLM: self.catalog.env_llm, Operation.EMBEDDING: self.catalog.env_embedding}.get(operation)
        if env is not None:
            schedules.append((Span(0, (env,)),))
        listed = self._listed(provider, model, tier) if model else None
        if listed is not None:
            schedules.append(listed)
        return Chain(tuple(schedules), plain(schedules[0]) if schedules else None)

    def _same_as(self, card: Card, target: tuple[str, str], record: Record) -> Card | None:
        """The list price a prices.toml entry points to; its ref names both."""
        provider, model = target
        tier = tier_name(provider, record.service_tier)
        schedule = self._listed(provider, record.model if model == "*" else model, tier)
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

    def _warn(self, record: Record) -> None:
        what = (record.provider, record.model, record.service_tier or "")
        if what in self._warned or len(self._warned) >= _WARNED:
            return
        self._warned.add(what)
        tier = f" in service tier {what[2]!r}" if what[2] else ""
        _log.warning(
            "no price for %s/%s%s: calls are recorded without cost; add it to prices.toml, then `taximeter reprice`",
            what[0],
            what[1],
            tier,
        )


def _asking(call: Open, model: str, tier: str) -> Record:
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
        outcome=Outcome.OK,
    )


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


_DECODER = msgspec.json.Decoder(Catalog)
