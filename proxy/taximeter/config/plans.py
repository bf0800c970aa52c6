"""Plans and currencies as the settings write them, as values; and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeVar
from zoneinfo import ZoneInfo

from taximeter.billing.rule import CODES, KINDS, MOST_PER, Plan, Price, Rate, currency_rate, factor_ppm
from taximeter.config.settings import PlanPriceSettings, PlanSettings, Settings
from taximeter.core import pricecodes
from taximeter.core.errors import BadRequest
from taximeter.core.times import moment_us, zone
from taximeter.core.views import NUSD_PER_USD

QUARTER_US = 900_000_000
"""Sums are kept by quarters of an hour: periods, plans and rates begin with one."""

Problems = Iterable[tuple[str, str]]
T = TypeVar("T")


class _Bad(ValueError):
    """Holds the path within the table, and what is wrong there."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = path, why


def plans(settings: Settings) -> list[Plan]:
    """Those of the settings, in order. Raises ValueError on what `plan_problems` finds."""
    return [_plan(each, zone(settings.billing.tz)) for each in settings.plan]


def rates(settings: Settings) -> list[Rate]:
    """The rates of currencies. Raises ValueError on what `plan_problems` finds."""
    place = zone(settings.billing.tz)
    return [
        Rate(
            code=each.code,
            rate=_at("rate", currency_rate, each.rate),
            decimals=each.decimals,
            from_us=_from_us(each.valid_from, place),
        )
        for each in settings.currency
    ]


def plan_problems(settings: Settings) -> Problems:
    """(path, what is wrong with the value there) of [billing], `[[currency]]` and `[[plan]]`."""
    try:
        place = zone(settings.billing.tz)
    except BadRequest as error:
        yield "billing.tz", str(error)
        return
    yield from _currency_problems(settings)
    known: set[tuple[object, ...]] = set()
    for number, written in enumerate(settings.plan):
        try:
            plan = _plan(written, place)
        except _Bad as error:
            yield f"plan[{number}].{error.path}", error.why
            continue
        about = (plan.workspaces, plan.keys, plan.from_us)
        if about in known:
            yield f"plan[{number}].valid_from", "another plan is about the same calls from the same moment on"
        known.add(about)


def _currency_problems(settings: Settings) -> Problems:
    place = zone(settings.billing.tz)
    known: set[tuple[str, int]] = set()
    for number, each in enumerate(settings.currency):
        path = f"currency[{number}]"
        if not (len(each.code) == 3 and each.code.isascii() and each.code.isupper()):
            yield f"{path}.code", "it must be three capital letters, such as EUR"
        try:
            currency_rate(each.rate)
        except ValueError as error:
            yield f"{path}.rate", str(error)
        try:
            begins = each.code, _from_us(each.valid_from, place)
        except _Bad as error:
            yield f"{path}.{error.path}", error.why
            continue
        if each.code == "USD" and Decimal(str(each.rate)) != 1:
            yield f"{path}.rate", "one USD is one USD"
        if begins in known:
            yield f"{path}.valid_from", "there is another rate of this currency from the same moment on"
        known.add(begins)
    if settings.billing.currency not in {"USD", *(each.code for each in settings.currency)}:
        yield "billing.currency", "there is no [[currency]] with this code"


def _plan(written: PlanSettings, place: ZoneInfo) -> Plan:
    if not written.name.strip():
        raise _Bad("name", "give it a name: statements show it")
    for name in ("workspaces", "keys"):
        if "" in getattr(written, name) or (name == "workspaces" and not written.workspaces):
            raise _Bad(name, 'give names or patterns, for example ["acme*"]')
    factor = _at("markup_percent", factor_ppm, written.markup_percent)
    prices = tuple(_price(each, f"price[{number}]") for number, each in enumerate(written.price))
    if factor is None and not prices:
        raise _Bad("markup_percent", "give a markup, or prices: the plan says nothing of what is charged")
    for number, price in enumerate(prices):
        for before in prices[:number]:
            if (before.kind, before.models, before.tasks) == (price.kind, price.models, price.tasks):
                raise _Bad(f"price[{number}].code", f"{before.code!r} above has a price for the same use")
            if before.kind == price.kind == "chunk":
                raise _Bad(f"price[{number}].code", "chunks have one price: no model and no task is known of them")
    return Plan(
        name=written.name,
        workspaces=tuple(written.workspaces),
        keys=tuple(written.keys),
        from_us=_from_us(written.valid_from, place),
        factor_ppm=factor,
        prices=prices,
    )


def _price(written: PlanPriceSettings, path: str) -> Price:
    if written.code not in KINDS and written.code not in CODES:
        raise _Bad(f"{path}.code", f"it must be one of {', '.join((*KINDS, *CODES))}")
    kind, per = CODES.get(written.code) or (written.code, KINDS[written.code].per)
    for name in ("models", "tasks"):
        if "" in getattr(written, name) or not getattr(written, name):
            raise _Bad(f"{path}.{name}", 'give names or patterns; ["*"] for all')
    steps = [(0, 0), (written.included, _nusd(written.usd, f"{path}.usd"))] if written.included else []
    steps = steps or [(0, _nusd(written.usd, f"{path}.usd"))]
    for number, tier in enumerate(written.tiers):
        if tier.above <= steps[-1][0]:
            raise _Bad(f"{path}.tiers[{number}].above", f"it must be more than {steps[-1][0]:,}: tiers ascend")
        steps.append((tier.above, _nusd(tier.usd, f"{path}.tiers[{number}].usd")))
    return Price(
        code=written.code,
        kind=kind,
        per=min(written.per or per, MOST_PER),
        steps=tuple(steps),
        models=tuple(written.models),
        tasks=tuple(written.tasks),
    )


def _nusd(written: str | float, path: str) -> int:
    amount = _at(path, pricecodes.price, written)
    if amount is None:
        raise _Bad(path, "give an amount of USD; 0 where it costs nothing")
    return int(amount * NUSD_PER_USD)


def _from_us(written: str, place: ZoneInfo) -> int:
    if not written:
        return 0
    try:
        at_us = moment_us(written, place, "valid_from")
    except BadRequest as error:
        raise _Bad("valid_from", str(error)) from None
    if at_us % QUARTER_US:
        at = datetime.fromtimestamp(at_us // 1_000_000, UTC).isoformat()
        raise _Bad("valid_from", f"it must be at a full quarter of an hour: sums are kept by these; {at} is not")
    return at_us


def _at(path: str, read: Callable[[str | float], T], value: str | float) -> T:
    try:
        return read(value)
    except ValueError as error:
        raise _Bad(path, str(error)) from None
