"""Looks up the price of a call: one dictionary look-up and integer arithmetic, about 2 µs.

Which of all prices applies, `lists` knows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from taximeter.core.bounds import MAX_COST_NUSD
from taximeter.core.errors import ConfigError
from taximeter.core.prices import PICO_PER_NANO, Card, Rates, Schedule, cost_nusd
from taximeter.core.record import IMPOSSIBLE, Operation, Outcome, Record
from taximeter.pricebook.catalog import FORMAT, Catalog
from taximeter.pricebook.lists import PriceLists
from taximeter.pricebook.shown import card_as_dict

_log = logging.getLogger("taximeter.prices")

_REMEMBERED = 4_096
"""Names kept resolved; beyond it all are forgotten, so made-up model names cannot fill the memory."""
_WARNED = 1_000
"""Most models warned about; one line each."""
_SENT = frozenset(Outcome) - {Outcome.REFUSED, Outcome.UPSTREAM_UNREACHABLE}

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

    def find(self, record: Record) -> Card | None:
        """The card a call would be priced by, or None; the record needs no usage."""
        return self.lists.card(record, self._chain(record).schedules)

    def explain(self, record: Record) -> dict[str, object] | None:
        """The same as `cards` shows it."""
        card = self.find(record)
        return None if card is None else card_as_dict(card)

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


_DECODER = msgspec.json.Decoder(Catalog)
