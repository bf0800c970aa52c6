"""From sums of history to the lines of a statement, and what closed periods are short of. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec
from msgspec import UNSET

from taximeter.billing.rule import (
    Charged,
    Plan,
    Price,
    Rate,
    charge,
    charge_chunks,
    converted,
    plan_at,
)
from taximeter.billing.statement import Amount, Line, Quantities, Total, UnitPrice
from taximeter.core.views import usd
from taximeter.sinks.cells import FIELDS
from taximeter.sinks.query import SERIES, QuantitySum

KEY = SERIES[1:]
"""What sums are kept by for ever, beside the workspace: what is stated is remembered by these."""

CHUNKS, UNCHARGED = "chunks", "uncharged_requests"
"""Beside the sums of history: chunks as told, and calls whose charge is not known."""

OTHER = "other:"
"""How the names of quantities begin that history keeps by kind (core.quantities), beside its sums."""

_QUANTITY_OF = {
    "input_tokens": "llm_input_tokens",
    "cached_input_tokens": "llm_cached_input_tokens",
    "cache_write_input_tokens": "llm_cache_write_input_tokens",
    "output_tokens": "llm_output_tokens",
    "reasoning_output_tokens": "llm_reasoning_output_tokens",
}
"""Quantities that history calls something else."""

Names = tuple[str | None, ...]
Stretch = tuple[int, Mapping[Names, Sequence[int]]]
"""(its beginning in µs, sums of history by names) of a part of a period in which one set of plans holds."""


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """Sums by KEY: on a statement, or what the ledger says they should be."""

    key: Names
    sums: dict[str, int]
    """By names of cells.FIELDS, and CHUNKS and UNCHARGED; those that are not 0."""
    charge_nusd: int | None


class Part(msgspec.Struct):
    """What is charged alike of a period: sums with one key, under one plan."""

    key: dict[str, str | None]
    sums: dict[str, int]
    charged: Charged
    plan: Plan | None


def parts(
    names: Sequence[str], stretches: Sequence[Stretch], plans: Sequence[Plan], workspace: str, chunks: int, at_us: int
) -> list[Part]:
    """A period's sums by `names`, which hold KEY, with what they are charged. `at_us`: when its chunks count."""
    of_plan: dict[Plan | None, list[tuple[dict[str, str | None], dict[str, int]]]] = defaultdict(list)
    for start_us, sums in stretches:
        for values in sorted(sums, key=lambda each: tuple(value or "" for value in each)):
            key = dict(zip(names, values, strict=True))
            of_plan[plan_at(plans, workspace, key["key_id"], start_us)].append((key, _named(sums[values])))
    found: list[Part] = []
    for plan, used in of_plan.items():
        charges = [Charged(nusd=None)] * len(used) if plan is None else charge(plan, used)
        for (key, figures), charged in zip(used, charges, strict=True):
            if uncharged := figures.get("requests", 0) if plan is None else charged.uncharged:
                figures[UNCHARGED] = uncharged
            found.append(Part(key, figures, charged, plan))
    if chunks:
        plan = plan_at(plans, workspace, None, at_us)
        charged_chunks = None if plan is None else charge_chunks(plan, chunks)
        key = dict.fromkeys(names)
        found.append(Part(key, {CHUNKS: chunks}, charged_chunks or Charged(nusd=None), plan))
    return found


def others(found: Iterable[QuantitySum]) -> list[Part]:
    """A period's quantities by kind and variant, by KEY: they are charged nothing by themselves."""
    return [
        Part(each.key, {f"{OTHER}{each.kind} {each.variant or ''}".rstrip(): each.amount}, Charged(nusd=None), None)
        for each in found
        if each.kind not in FIELDS
    ]


def _named(cell: Sequence[int]) -> dict[str, int]:
    return {name: figure for name, figure in zip(FIELDS, cell, strict=True) if figure}


def stated(period: Iterable[Part]) -> dict[Names, Stated]:
    """A period's sums by KEY."""
    found: dict[Names, Stated] = {}
    for part in period:
        key = tuple(part.key[name] for name in KEY)
        found[key] = plus(found.get(key), Stated(key=key, sums=part.sums, charge_nusd=part.charged.nusd))
    return found


def plus(one: Stated | None, other: Stated, sign: int = 1) -> Stated:
    """Two as one; with `sign` -1 what the first is more than the second. A charge is known where either is."""
    if one is None:
        one = Stated(key=other.key, sums={}, charge_nusd=None)
    sums = dict(one.sums)
    for name, figure in other.sums.items():
        sums[name] = sums.get(name, 0) + sign * figure
    known = one.charge_nusd is not None or other.charge_nusd is not None
    return Stated(
        key=one.key,
        sums={name: figure for name, figure in sums.items() if figure},
        charge_nusd=(one.charge_nusd or 0) + sign * (other.charge_nusd or 0) if known else None,
    )


def short_of(now: Mapping[Names, Stated], before: Mapping[Names, Stated]) -> list[Stated]:
    """What has to be added to what was stated of a period, so that it is what the ledger says now."""
    found = []
    for key in sorted({*now, *before}, key=lambda each: tuple(value or "" for value in each)):
        nothing = Stated(key=key, sums={}, charge_nusd=None)
        missing = plus(now.get(key, nothing), before.get(key, nothing), -1)
        if missing.sums or missing.charge_nusd:
            found.append(missing)
    return found


Reasons = Sequence[tuple[Mapping[str, str | None], str, int]]
"""(names, why calls have no cost, how many)."""


def lines(period: Sequence[Part], by: Sequence[str], rate: Rate, reasons: Reasons) -> list[Line]:
    """A period's own lines, the dearest first."""
    groups: dict[Names, list[Part]] = defaultdict(list)
    for part in period:
        groups[tuple(part.key[name] for name in by)].append(part)
    why: dict[Names, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for names, reason, calls in reasons:
        why[tuple(names[name] for name in by)][reason] += calls
    found = []
    for values, group in groups.items():
        whole = None
        for part in group:
            whole = plus(whole, Stated(key=values, sums=part.sums, charge_nusd=part.charged.nusd))
        if whole is not None and (whole.sums or whole.charge_nusd):
            left_out = sorted({kind for part in group for kind in part.charged.left_out})
            found.append(
                _line(whole, by, rate, None, _prices(group), left_out, dict(why.get(values, {}))),
            )
    return sorted(found, key=_weight)


def corrections(missing: Sequence[Stated], by: Sequence[str], rate: Rate, number: int) -> list[Line]:
    """The lines that credit or debit what the closed statement of this number is short of."""
    kept = [name for name in by if name in KEY]
    groups: dict[Names, Stated] = {}
    for each in missing:
        values = tuple(each.key[KEY.index(name)] for name in kept)
        groups[values] = plus(groups.get(values), Stated(key=values, sums=each.sums, charge_nusd=each.charge_nusd))
    found = [_line(each, kept, rate, number, [], [], {}) for each in groups.values() if each.sums or each.charge_nusd]
    return sorted(found, key=_weight)


def _weight(line: Line) -> tuple[Decimal, Decimal, str]:
    cost = line.cost_usd if isinstance(line.cost_usd, Decimal) else Decimal(0)
    return -abs(line.charge_usd or Decimal(0)), -abs(cost), repr(sorted(line.key.items()))


def _line(
    whole: Stated,
    by: Sequence[str],
    rate: Rate,
    corrects: int | None,
    prices: list[UnitPrice],
    left_out: list[str],
    reasons: dict[str, int],
) -> Line:
    sums = whole.sums
    cost_nusd = sums.get("cost_nusd", 0)
    unknown, unpriced = sums.get("unknown_requests", 0), sums.get("unpriced_requests", 0)
    cost_known = bool(cost_nusd) or not (unknown or unpriced)
    return Line(
        corrects=corrects,
        key=dict(zip(by, whole.key, strict=True)),
        quantities=_quantities(sums),
        others={name.removeprefix(OTHER): figure for name, figure in sums.items() if name.startswith(OTHER)},
        unknown_requests=unknown,
        unpriced_requests=unpriced,
        unpriced_reasons=reasons,
        uncharged_requests=sums.get(UNCHARGED, 0),
        left_out=left_out,
        prices=prices,
        cost_usd=usd(cost_nusd) if cost_known else None,
        charge_usd=None if whole.charge_nusd is None else usd(whole.charge_nusd),
        rate=rate.rate,
        cost=converted(cost_nusd, rate) if cost_known else None,
        charge=None if whole.charge_nusd is None else converted(whole.charge_nusd, rate),
    )


def _quantities(sums: Mapping[str, int]) -> Quantities:
    names = Quantities.__struct_fields__
    return Quantities(**{name: sums.get(_QUANTITY_OF.get(name, name), 0) for name in names})


def _prices(group: Sequence[Part]) -> list[UnitPrice]:
    quantities: dict[tuple[str, Price], int] = defaultdict(int)
    for part in group:
        for number, quantity in part.charged.parts:
            if part.plan is not None and quantity:
                quantities[part.plan.name, part.plan.prices[number]] += quantity
    return [
        UnitPrice(
            plan=plan,
            code=price.code,
            quantity=quantity,
            per=price.per,
            usd=None if price.unit_nusd is None else usd(price.unit_nusd),
            steps=[] if price.unit_nusd is not None else [(start, usd(nusd)) for start, nusd in price.steps],
        )
        for (plan, price), quantity in quantities.items()
    ]


def total(found: Sequence[Line]) -> Total:
    """The sums of the lines; their amounts in the currency are sums of rounded ones."""
    cost_usd, cost = (_sum(getattr(line, name) for line in found) for name in ("cost_usd", "cost"))
    charge_usd, charged = (_sum(getattr(line, name) for line in found) for name in ("charge_usd", "charge"))
    unknown = any(
        line.unknown_requests > 0 or line.unpriced_requests is UNSET or line.unpriced_requests > 0
        or line.uncharged_requests > 0
        for line in found
    )  # fmt: skip
    names = Quantities.__struct_fields__
    return Total(
        quantities=Quantities(**{name: sum(getattr(line.quantities, name) for line in found) for name in names}),
        unknown_requests=sum(line.unknown_requests for line in found),
        unpriced_requests=sum(line.unpriced_requests or 0 for line in found),
        uncharged_requests=sum(line.uncharged_requests for line in found),
        cost_usd=cost_usd,
        charge_usd=charge_usd,
        margin_usd=None if unknown or cost_usd is None or charge_usd is None else charge_usd - cost_usd,
        cost=cost,
        charge=charged,
        margin=None if unknown or cost is None or charged is None else charged - cost,
    )


def _sum(amounts: Iterable[Amount]) -> Decimal | None:
    """Of those that are known; None: there are some, and none is."""
    given = list(amounts)
    known = [amount for amount in given if isinstance(amount, Decimal)]
    return sum(known, Decimal(0)) if known or not given else None
