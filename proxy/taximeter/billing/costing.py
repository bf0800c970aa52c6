"""What a line's cost is made of, at the provider's unit prices: told where each held for the whole line. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec
from msgspec.structs import replace

from taximeter.billing.statement import CostPrice, Line
from taximeter.core.record import Record
from taximeter.core.views import usd

MOST_RECORDS = 10_000
"""Single records that are looked at for the unit prices of a statement; of a period with more they are not told."""

Names = tuple[str | None, ...]


class Cost(msgspec.Struct, frozen=True):
    """A part of a call's cost."""

    unit: str
    """What is counted: `Input Tokens`."""
    quantity: Decimal
    per: int
    usd: Decimal
    """For so many."""


Itemise = Callable[[Record, int], Sequence[Cost] | None]
"""What a call's cost (nano-USD) is made of; None: it is not that of the prices known."""


def with_prices(lines: Sequence[Line], by: Sequence[str], records: Iterable[Record], itemise: Itemise) -> list[Line]:
    """The lines, those of which all calls are known and were priced alike with their unit prices."""
    found: dict[Names, _Group] = defaultdict(_Group)
    costs: dict[tuple[str, int, str | None], int | None] = {}
    usages: list[Record] = []
    for record in records:
        place = (record.request_id, record.attempt, record.line)
        known = [part for part in (costs.get(place), record.cost_nusd) if part is not None]
        costs[place] = sum(known) if known else None
        if record.kind == "usage":
            usages.append(record)
    for record in usages:
        nusd = costs[record.request_id, record.attempt, record.line]
        if nusd is not None:
            found[tuple(getattr(record, name) for name in by)].add(nusd, itemise(record, nusd))
    return [_with(line, found, by) for line in lines]


class _Group:
    """The calls of a line."""

    def __init__(self) -> None:
        self.nusd = 0
        self.parts: dict[tuple[str, int, Decimal], Decimal] | None = {}
        """None: some are not priced by what is known."""

    def add(self, nusd: int, costs: Sequence[Cost] | None) -> None:
        self.nusd += nusd
        if costs is None or self.parts is None:
            self.parts = None
            return
        for each in costs:
            place = (each.unit, each.per, each.usd)
            self.parts[place] = self.parts.get(place, Decimal(0)) + each.quantity


def _with(line: Line, found: Mapping[Names, _Group], by: Sequence[str]) -> Line:
    group = found.get(tuple(line.key[name] for name in by))
    if group is None or not group.parts or usd(group.nusd) != line.cost_usd:
        return line
    if len({unit for unit, _, _ in group.parts}) < len(group.parts):
        return line  # a price changed, or they are of several models
    prices = [
        CostPrice(unit=unit, quantity=quantity, per=per, usd=price)
        for (unit, per, price), quantity in group.parts.items()
    ]
    return replace(line, cost_prices=prices)
