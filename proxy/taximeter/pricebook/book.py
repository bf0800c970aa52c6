"""Looks up the price of a call: one dictionary look-up and integer arithmetic, about 2 µs.

Which of all prices applies, `lists` knows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from taximeter.core.bounds import MAX_COST_NUSD
from taximeter.core.errors import ConfigError
from taximeter.core.prices import PICO_PER_NANO, Card, Most, Rates, Schedule, cost_nusd, dearest_nusd
from taximeter.core.record import IMPOSSIBLE, Open, Operation, Outcome, Record
from taximeter.pricebook.catalog import FORMAT, Catalog
from taximeter.pricebook.lists import PriceLists
from taximeter.pricebook.names import provider_name
from taximeter.pricebook.shown import card_as_dict

_log = logging.getLogger("taximeter.prices")

_REMEMBERED = 4_096
"""Names kept resolved; beyond it all are forgotten, so made-up model names cannot fill the memory."""
_WARNED = 1_000
"""Most models warned about; one line each."""
_SENT = frozenset(Outcome) - {Outcome.REFUSED, Outcome.UPSTREAM_UNREACHABLE}

LONG_CONTEXT_TOKENS = 1_000_000
"""The window of a model that is listed with a shorter one and with a price for prompts beyond it (Claude Sonnet 4)."""

Key = tuple[str, str | None, str | None, str | None, Operation]


class Plain(NamedTuple):
    """A schedule of one card that prices input, cached input and output (pico-USD a token), and else only searches."""

    from_us: int
    input: int
    cached_input: int
    output: int
    ref: str

    def cost_nusd(self, record: Record) -> int | None:
        """The same as `cost_nusd(card, record)`, in a third of the time; None: ask that."""
        tokens_in, tokens_out, cached = record.input_tokens, record.output_tokens, record.cached_input_tokens or 0
        if tokens_in is None or tokens_out is None or cached > tokens_in or record.ended_at < self.from_us:
            return None
        if record.web_search_requests is not None:
            return None
        pico = self.input * (tokens_in - cached) + self.cached_input * cached + self.output * tokens_out
        return min((2 * pico + PICO_PER_NANO) // (2 * PICO_PER_NANO), MAX_COST_NUSD)


def plain(schedule: Schedule) -> Plain | None:
    """The schedule as a Plain, where it is one."""
    if len(schedule) != 1 or len(schedule[0].cards) != 1:
        return None
    card = schedule[0].cards[0]
    if card is None or card.above or card.free or card.same_as is not None:
        return None
    rates = card.rates
    if rates.input is None or rates.output is None:
        return None
    counted = Rates(
        input=rates.input, cached_input=rates.cached_input, output=rates.output, web_search=rates.web_search
    )
    if rates != counted:
        return None
    cached = rates.input if rates.cached_input is None else rates.cached_input
    return Plain(schedule[0].from_us, rates.input, cached, rates.output, card.ref)


class Chain(NamedTuple):
    """The schedules that may apply to a call, strongest first; and the first as a Plain, where it is one."""

    schedules: tuple[Schedule, ...]
    plain: Plain | None


class PriceBook:
    """Prices for calls. Not thread-safe; cheap to load, one per process."""

    def __init__(self, catalog: Catalog) -> None:
        self.lists = PriceLists(catalog)
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
        card = self.lists.card(record, chain.schedules)
        if card is None:
            if record.outcome in _SENT and (record.input_tokens is not None or record.search_units is not None):
                self._warn(record)
            return None, None
        nusd = cost_nusd(card, record)
        return (None, None) if nusd is None else (nusd, card.ref)

    def explain(self, record: Record) -> dict[str, object] | None:
        """The card a call would be priced by, as `cards` shows it, or None; the record needs no usage."""
        card = self.lists.card(record, self._chain(record).schedules)
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
        return self.lists.card(record, self._chain(record).schedules)

    def context_tokens(self, provider: str, model: str, *, longest: bool = True) -> int | None:
        """A model's context window, or None where none is listed.

        A price for longer prompts says that there is a longer one than listed; `longest` False: it was not asked for.
        """
        found = self.lists.entry(provider_name(provider), model)
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
            for tier in self.lists.tiers(call.provider, model) if tiers is None else tiers:
                record = _asking(call, model, tier)
                card = self.lists.card(record, self._chain(record).schedules)
                if card is not None:
                    costs.append(dearest_nusd(card, most))
            worst, priced = max([worst, *costs]), priced and bool(costs)
        return worst, priced

    def cards(self) -> Iterator[dict[str, object]]:
        """See `PriceLists.cards`."""
        return self.lists.cards()

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
            schedules = self.lists.schedules(*key)
            chain = Chain(schedules, plain(schedules[0]) if schedules else None)
            if len(self._chains) >= _REMEMBERED:
                self._chains.clear()
            self._chains[key] = chain
        return chain

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


_DECODER = msgspec.json.Decoder(Catalog)
