"""Looks up the price of a call: one dictionary look-up and integer arithmetic, about 2 µs.

Which of all prices applies, `lists` knows.
"""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from taximeter.core.bounds import MAX_COST_NUSD
from taximeter.core.errors import ConfigError
from taximeter.core.prices import PICO_PER_NANO, Card, Rates, Schedule, cost_nusd
from taximeter.core.record import IMPOSSIBLE, IN_PART, Operation, Record
from taximeter.pricebook.catalog import FORMAT, Catalog
from taximeter.pricebook.lists import PriceLists
from taximeter.pricebook.unpriced import Warnings, why

_REMEMBERED = 4_096
"""Names kept resolved; beyond it all are forgotten, so made-up model names cannot fill the memory."""

Name = str | None
Key = tuple[str, Name, Name, Name, Name, Name, Operation]


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
        if (
            record.web_search_requests is not None
            or record.file_search_requests is not None
            or record.code_interpreter_sessions is not None
            or record.maps_requests is not None
            or record.image_generations is not None
        ):
            return None
        pico = self.input * (tokens_in - cached) + self.cached_input * cached + self.output * tokens_out
        return min((2 * pico + PICO_PER_NANO) // (2 * PICO_PER_NANO), MAX_COST_NUSD)


def plain(schedule: Schedule) -> Plain | None:
    """The schedule as a Plain, where it is one."""
    if len(schedule) != 1 or len(schedule[0].cards) != 1:
        return None
    card = schedule[0].cards[0]
    if card is None or card.above or card.sized or card.free or card.same_as is not None:
        return None
    rates = card.rates
    counted = Rates(input=rates.input, cached_input=rates.cached_input, output=rates.output)
    beside = replace(rates, web_search=None, file_search=None, code_interpreter=None, maps=None, image_generation=None)
    if rates.input is None or rates.output is None or beside != counted:
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
        self._unpriced = Warnings()

    @classmethod
    def load(cls, path: Path) -> PriceBook:
        """From a file `compile_prices` wrote. Raises ConfigError where it is missing or of another version."""
        try:
            catalog = msgspec.json.decode(path.read_bytes(), type=Catalog)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: the compiled prices cannot be read: {error}. They are made at start.") from None
        if catalog.format != FORMAT:
            raise ConfigError(f"{path}: compiled by another version (format {catalog.format}); start again.")
        return cls(catalog)

    def cost(self, record: Record) -> tuple[int | None, str | None]:
        """(cost in nano-USD, price_ref) of a call, both None where it has no price or its usage is not known."""
        if record.inconsistent or record.cost_note in (IMPOSSIBLE, IN_PART):  # no bill can be made of such figures
            return None, None
        chain = self._chain(record)
        if chain.plain is not None:
            nusd = chain.plain.cost_nusd(record)
            if nusd is not None:
                return nusd, chain.plain.ref
        card = self.lists.card(record, chain.schedules)
        if card is None:
            self._unpriced.warn(record)
            return None, None
        nusd = cost_nusd(card, record)
        return (None, None) if nusd is None else (nusd, card.ref)

    def apart(self) -> PriceBook:
        """Another look-up of the same prices, for another thread."""
        other = copy(self)
        other._chains = {}
        return other

    def why(self, record: Record) -> str | None:
        """See `unpriced.why`."""
        return why(record, self)

    def find(self, record: Record) -> Card | None:
        """The card a call would be priced by, or None; the record needs no usage."""
        return self.lists.card(record, self._chain(record).schedules)

    def _chain(self, record: Record) -> Chain:
        key = (
            record.provider, record.request_model, record.response_model, record.service_tier, record.speed,
            record.region, record.operation,
        )  # fmt: skip
        chain = self._chains.get(key)
        if chain is None:
            schedules = self.lists.schedules(*key)
            chain = Chain(schedules, plain(schedules[0]) if schedules else None)
            if len(self._chains) >= _REMEMBERED:
                self._chains.clear()
            self._chains[key] = chain
        return chain
