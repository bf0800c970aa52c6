"""What calls' costs are made of, for statements: by the providers' prices in force, as FOCUS charges tell it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from taximeter.billing.costing import Cost, Itemise
from taximeter.core.prices import Card
from taximeter.core.record import Record
from taximeter.exports.itemised import AUDIO_TIME, Line, lines, sum_nusd


def itemise(card_of: Callable[[Record], Card | None]) -> Itemise:
    """`card_of`: the price of a call."""

    def made_of(record: Record, nusd: int) -> list[Cost] | None:
        card = card_of(record)
        found = [] if card is None else lines(card, record)
        if card is None or sum_nusd(found) != nusd:
            return None
        return [Cost(each.meter.name, Decimal(each.priced), each.meter.per, _usd(each)) for each in found]

    return made_of


def _usd(line: Line) -> Decimal:
    """For what a price is for; pico-USD are for one, or of time for an hour."""
    return Decimal((line.rate or 0) * (1 if line.meter is AUDIO_TIME else line.meter.per)).scaleb(-12)
