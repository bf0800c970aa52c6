"""What an operator charges his own customers: plans, their prices, and the arithmetic of a charge. Pure.

Integers only: money in nano-USD, a price for so many units. A charge is rounded once for each price and stretch of
time, half to even: what single lines have of it are differences of rounded running sums, so that they add up exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

import msgspec

from taximeter.core.globs import glob

MOST_PER = 10**12
MOST_MARKUP = 1_000_000
_MARKUP_UNIT = 1_000_000
"""A factor of one, in the units of `Plan.factor_ppm`."""


class Kind(msgspec.Struct, frozen=True):
    """What a price can be for."""

    field: str
    """The sum of history it is about; "" for chunks, which only who cut the documents knows."""
    per: int
    """Of how many the price is where it does not say."""
    operation: str = ""
    """The operation whose calls it is about; "": any."""
    part_of: str = ""
    """Counts with this kind where a plan has no price of its own for it."""


KINDS: dict[str, Kind] = {
    "input": Kind("llm_input_tokens", 1_000_000, "llm"),
    "cached_input": Kind("llm_cached_input_tokens", 1_000_000, "llm", "input"),
    "cache_write_input": Kind("llm_cache_write_input_tokens", 1_000_000, "llm", "input"),
    "output": Kind("llm_output_tokens", 1_000_000, "llm"),
    "reasoning_output": Kind("llm_reasoning_output_tokens", 1_000_000, "llm", "output"),
    "embedding": Kind("embedding_tokens", 1_000_000, "embedding"),
    "rerank": Kind("rerank_tokens", 1_000_000, "rerank"),
    "search_unit": Kind("search_units", 1_000, "rerank"),
    "audio_hour": Kind("audio_ms", 3_600_000),
    "request": Kind("requests", 1),
    "chunk": Kind("", 1),
}
CODES: dict[str, tuple[str, int]] = {
    "rag_embedding": ("embedding", 1_000),
    "rag_llm_input": ("input", 1_000),
    "rag_llm_output": ("output", 1_000),
    "rag_indexation": ("chunk", 1),
}
"""The price codes of a billing backend (core.pricecodes): each a kind and its unit."""

BESIDE = ("request", "chunk")
"""Charged beside whatever else a call is charged; a price of any other kind is charged instead of a markup on cost."""

Names = Mapping[str, str | None]
"""Whose calls: names of query.GROUPS."""
Used = Mapping[str, int]
"""Sums of history by their names (sinks.cells.FIELDS)."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a unit of one kind costs the customer, of some models and tasks."""

    code: str
    """As the settings write it: a name of KINDS or CODES."""
    kind: str
    per: int
    """Each step's amount is for so many."""
    steps: tuple[tuple[int, int], ...]
    """(from this quantity on, nano-USD), ascending from 0: what lies in a step costs that step's amount (graduated)."""
    models: tuple[str, ...] = ("*",)
    tasks: tuple[str, ...] = ("*",)

    @property
    def unit_nusd(self) -> int | None:
        """The amount where it is one for every quantity."""
        return self.steps[0][1] if len(self.steps) == 1 else None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the customers it is about pay, from a moment on."""

    name: str
    workspaces: tuple[str, ...] = ("*",)
    keys: tuple[str, ...] = ()
    """Ids of proxy keys; empty: calls with any key and without one. A plan that names keys goes before one that does
    not."""
    from_us: int = 0
    factor_ppm: int | None = None
    """Millionths of the cost that are charged where no price below is about a call; None: nothing is charged then."""
    prices: tuple[Price, ...] = ()


class Charged(msgspec.Struct, frozen=True, kw_only=True):
    """What some calls are charged."""

    nusd: int | None
    """None: not known, no plan says it, or it is a markup on a cost that is not known."""
    uncharged: int = 0
    """How many of the calls this is without. Those of which nobody told what they used are not among them."""
    parts: tuple[tuple[int, int], ...] = ()
    """(number of the plan's price, quantity)."""
    left_out: tuple[str, ...] = ()
    """Kinds used that the plan has no price for: they cost the customer nothing."""


def rounded(amount: int, per: int) -> int:
    """`amount / per` to the nearest whole number, half to even. `per` above 0."""
    whole, rest = divmod(amount, per)
    return whole + (2 * rest > per or (2 * rest == per and whole % 2 == 1))


def worth(price: Price, quantity: int) -> int:
    """What so many units cost, from the first on, in nano-USD."""
    amount = 0
    ends = (*(start for start, _ in price.steps[1:]), None)
    for (start, nusd), end in zip(price.steps, ends, strict=True):
        amount += nusd * max(0, (quantity if end is None else min(quantity, end)) - start)
    return rounded(amount, price.per)


def plan_at(plans: Sequence[Plan], workspace: str, key_id: str | None, at_us: int) -> Plan | None:
    """The plan that holds then: one that names the key before one that does not, of these the latest, of these the
    first."""
    mine = [plan for plan in plans if plan.from_us <= at_us and _about(plan, workspace, key_id)]
    return max(mine, key=lambda plan: (bool(plan.keys), plan.from_us), default=None)


def borders(plans: Sequence[Plan], from_us: int, to_us: int) -> list[int]:
    """The moments inside a period at which another plan may hold."""
    return sorted({plan.from_us for plan in plans if from_us < plan.from_us < to_us})


def of_workspace(plans: Sequence[Plan], workspace: str) -> list[Plan]:
    """Those that may be about its calls."""
    return [plan for plan in plans if _any(plan.workspaces, workspace)]


def charge(plan: Plan, used: Sequence[tuple[Names, Used]]) -> list[Charged]:
    """What each of these is charged: (its `model`, `task` and `operation`, its sums), in the order in which they fill
    steps."""
    reached: dict[int, int] = {}
    cost_nusd = 0
    found = []
    for names, sums in used:
        parts = _quantities(plan, names, sums)
        own = any(plan.prices[number].kind not in BESIDE for number, _ in parts)
        amount = 0
        for number, quantity in parts:
            before = reached.get(number, 0)
            reached[number] = before + quantity
            price = plan.prices[number]
            amount += worth(price, before + quantity) - worth(price, before)
        if not own and plan.factor_ppm is not None:
            before = rounded(cost_nusd * plan.factor_ppm, _MARKUP_UNIT)
            cost_nusd += sums.get("cost_nusd", 0)
            amount += rounded(cost_nusd * plan.factor_ppm, _MARKUP_UNIT) - before
        marked_up = not own and plan.factor_ppm is not None and _cost_is_known(sums)
        told = any(quantity for _, quantity in parts) or not sums.get("unknown_requests")
        known = marked_up or (bool(parts) and told)
        left_out = _left_out(plan, parts, names, sums) if own or plan.factor_ppm is None else ()
        found.append(
            Charged(
                nusd=amount if known else None,
                uncharged=_uncharged(plan, own, bool(parts), sums),
                parts=tuple(parts),
                left_out=left_out,
            )
        )
    return found


def _cost_is_known(used: Used) -> bool:
    """Whether there is a cost to mark up; 0 is one where each call has its cost."""
    return bool(used.get("cost_nusd")) or not (used.get("unknown_requests") or used.get("unpriced_requests"))


def _uncharged(plan: Plan, own: bool, priced: bool, used: Used) -> int:
    """Calls without the charge this plan is about: of a markup those without a cost, of no markup and no price all."""
    if own or (plan.factor_ppm is None and priced):
        return 0
    return used.get("requests" if plan.factor_ppm is None else "unpriced_requests", 0)


def charge_chunks(plan: Plan, chunks: int) -> Charged | None:
    """What so many chunks are charged; None: the plan has no price for them."""
    for number, price in enumerate(plan.prices):
        if price.kind == "chunk":
            return Charged(nusd=worth(price, chunks), parts=((number, chunks),))
    return None


def _quantities(plan: Plan, names: Names, used: Used) -> list[tuple[int, int]]:
    """(number of the price, quantity) of each price that is about these calls."""
    about: dict[str, int] = {}
    for number, price in enumerate(plan.prices):
        if price.kind != "chunk" and _is_about(price, names):
            about.setdefault(price.kind, number)
    found = {number: used.get(KINDS[kind].field, 0) for kind, number in about.items()}
    for kind, number in about.items():
        if (whole := about.get(KINDS[kind].part_of)) is not None:
            found[whole] = max(0, found[whole] - found[number])
    return list(found.items())


def _is_about(price: Price, names: Names) -> bool:
    kind = KINDS[price.kind]
    if kind.operation and kind.operation != names.get("operation"):
        return False
    return _any(price.models, names.get("model") or "") and _any(price.tasks, names.get("task") or "")


def _left_out(plan: Plan, parts: Sequence[tuple[int, int]], names: Names, used: Used) -> tuple[str, ...]:
    priced = {plan.prices[number].kind for number, _ in parts}
    return tuple(
        name
        for name, kind in KINDS.items()
        if kind.operation == names.get("operation")
        and not kind.part_of
        and used.get(kind.field, 0)
        and name not in priced
        and not (kind.operation == "rerank" and priced & {"rerank", "search_unit"})
    )


def _about(plan: Plan, workspace: str, key_id: str | None) -> bool:
    return _any(plan.workspaces, workspace) and (not plan.keys or _any(plan.keys, key_id or ""))


def _any(patterns: Sequence[str], text: str) -> bool:
    return any(pattern == "*" or glob(pattern)(text) for pattern in patterns)


def factor_ppm(markup_percent: str | float) -> int | None:
    """What a markup in per cent makes of a cost; None where there is none. Raises ValueError on what is no markup."""
    if markup_percent == "":
        return None
    try:
        percent = Decimal(str(markup_percent))
    except InvalidOperation:
        percent = Decimal("nan")
    if not (percent.is_finite() and -100 <= percent <= MOST_MARKUP and percent * 10_000 % 1 == 0):
        raise ValueError(f"it must be per cent, -100 to {MOST_MARKUP:,}, with at most 4 decimals")
    return int((100 + percent) * 10_000)


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a currency is one USD, from a moment on."""

    code: str
    rate: Decimal
    decimals: int = 2
    """Amounts are rounded to so many places."""
    from_us: int = 0


USD = Rate(code="USD", rate=Decimal(1), decimals=9)
"""Exact: what holds where no other is asked for."""


def rate_at(rates: Sequence[Rate], code: str, at_us: int) -> Rate | None:
    """The latest rate of a currency not after a moment; None: there is none."""
    mine = [rate for rate in rates if rate.code == code and rate.from_us <= at_us]
    return max(mine, key=lambda rate: rate.from_us, default=USD if code == "USD" else None)


def converted(nusd: int, rate: Rate) -> Decimal:
    """An amount in the rate's currency, rounded to its places, half to even."""
    exact = rate.rate * nusd
    found = exact.scaleb(-9).quantize(Decimal(1).scaleb(-rate.decimals), rounding=ROUND_HALF_EVEN)
    return found or abs(found)  # no -0.00 on a bill


def currency_rate(written: str | float) -> Decimal:
    """A rate as the settings give it. Raises ValueError on what is none."""
    try:
        amount = Decimal(str(written))
    except InvalidOperation:
        amount = Decimal("nan")
    if not (amount.is_finite() and 0 < amount <= 10**9 and amount * 10**9 % 1 == 0):
        raise ValueError("it must be how much of the currency is one USD, above 0, with at most 9 decimals")
    return amount
