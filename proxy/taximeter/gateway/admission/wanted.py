"""How much of each of its hard budgets a call must hold: its bound, counted and priced; and how it is clamped to what
is left of them. Asks no Redis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from taximeter.budgets.charges import Held
from taximeter.budgets.rule import MOST, Allowance
from taximeter.core.errors import BudgetExceeded, Unbounded
from taximeter.core.record import Open, Source
from taximeter.flavors.evals import EVALS
from taximeter.flavors.later import JOBS, VIDEOS
from taximeter.flavors.meter import Countable
from taximeter.flavors.usage.counts import decode
from taximeter.gateway.bounds.bounds import Bound, Limits, bound
from taximeter.gateway.bounds.clamp import shortened

if TYPE_CHECKING:
    from taximeter.config import BudgetSettings
    from taximeter.core.dearest import Most
    from taximeter.flavors.meter import Demand, Flavor
    from taximeter.gateway.metering.counting import Counted, Counting


_SAYS_SO = frozenset(("anthropic",))
"""Providers at which a request has to ask for a longer window (a header) and for writing into a cache
(`cache_control`): https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching"""


class Prices(Protocol):
    """What calls may cost at most (see `taximeter.pricebook`)."""

    def dearest_nusd(
        self, call: Open, models: Iterable[str], tiers: Iterable[str] | None, most: Most
    ) -> tuple[int, bool]: ...

    def context_tokens(self, provider: str, model: str, *, longest: bool = True) -> int | None: ...


class Weighed(NamedTuple):
    """What a request asks for, before it is sent."""

    text: Countable
    """Its prompt."""
    counted: Counted
    """The tokens of the prompt's texts."""
    bound: Bound
    """The most it may use."""
    bound_of: Callable[[Demand], Bound]
    """The same of the call with other members, which say nothing else."""


class Want(NamedTuple):
    """What a call wants of its budgets."""

    held: Held
    weighed: Weighed

    def of(self, allowances: Sequence[Allowance], attempt: int = 1) -> list[tuple[Allowance, int]]:
        """How much of each, in its own unit."""
        return [(each, self.held.of(each.budget.unit, attempt)) for each in allowances]


_LATER = (JOBS, VIDEOS, EVALS)
"""Started now, and billed by what is told later."""


def held_of(most: Bound, cost_nusd: int | None) -> Held:
    """What a call of this bound, which costs at most so much, holds."""
    answer, audio_ms = min(most.output_tokens, most.tokens), min(most.seconds * 1_000, MOST)
    return Held(most.tokens, cost_nusd, output_tokens=answer, audio_ms=audio_ms)


def _share(allowances: Sequence[Allowance], percent: float) -> Held:
    """So many per cent of the smallest limit of each unit."""

    def of(*units: str) -> int | None:
        limits = [each.budget.limit for each in allowances if each.budget.unit in units]
        return math.ceil(min(limits) * percent / 100) if limits else None

    tokens = of("tokens", "input_tokens", "output_tokens") or 0
    return Held(tokens, of("usd"), output_tokens=of("output_tokens"), audio_ms=of("seconds") or 0)


class Wanting:
    """What calls want of their budgets, by one worker's settings."""

    def __init__(self, settings: BudgetSettings, prices: Prices, counting: Counting) -> None:
        self._settings = settings
        self._prices = prices
        self._counting = counting

    async def of(
        self, allowances: Sequence[Allowance], opening: Open, flavor: Flavor, demand: Demand, tokenizer: str
    ) -> Want:
        """The most that the call may use.

        Raises Unbounded; BudgetExceeded (no price, and `on_unpriced = "refuse"`); BadRequest on a bound that is no
        number.
        """
        weighed = await self.weigh(opening, flavor, demand, tokenizer)
        if allowances and self._settings.later_percent and weighed.bound.endless and flavor in _LATER:
            return Want(_share(allowances, self._settings.later_percent), weighed)
        if allowances:  # a rate alone is no promise about a bill
            self.check_bounded(weighed.bound)
        held = self._held(allowances, opening, demand, weighed.bound)
        held.budgets = bool(allowances)
        return Want(held, weighed)

    def clamp(
        self,
        wanted: Want,
        unheld: Sequence[tuple[Allowance, int]],
        call: Open,
        flavor: Flavor,
        demand: Demand,
        body: bytes,
    ) -> tuple[Want, bytes, int] | None:
        """The call with its answer shortened to what is left: what it then wants, its body, the tokens of an answer.

        `unheld`: its allowances, with what is left of each and not held. None: nothing in it bounds an answer, not even
        the shortest allowed would fit, or the body cannot be changed so that its new bound is sure.
        """
        most, allowances = wanted.weighed.bound, [allowance for allowance, _ in unheld]

        def held(most: Bound) -> Held:
            return self._held(allowances, call, demand, most)

        def fits(held: Held) -> bool:
            return all(held.of(each.budget.unit, call.attempt) <= left for each, left in unheld)

        fitting = max(self._settings.clamp_min_output_tokens, most.thinking_tokens + 1)
        too_long = most.answer_tokens
        if fitting >= too_long or not fits(held(most.shorter(fitting))):
            return None
        while too_long - fitting > 1:
            middle = (fitting + too_long) // 2
            if fits(held(most.shorter(middle))):
                fitting = middle
            else:
                too_long = middle
        body_now = shortened(flavor.dialect, call.provider, demand.members, body, fitting)
        members = None if body_now is None else decode(body_now)
        if body_now is None or not isinstance(members, dict):
            return None
        weighed = wanted.weighed._replace(
            bound=wanted.weighed.bound_of(msgspec.structs.replace(demand, members=members))
        )
        shorter = held(weighed.bound)
        return (Want(shorter, weighed), body_now, fitting) if fits(shorter) else None

    async def weigh(self, opening: Open, flavor: Flavor, demand: Demand, tokenizer: str) -> Weighed:
        """A call's prompt, counted, and its bound. Raises BadRequest on a bound that is no number."""
        text = flavor.input(demand.reading)
        counted = await self._counting.count(
            Countable(texts=text.texts), model=opening.request_model, provider=opening.provider, tokenizer=tokenizer
        )
        tokens = counted.tokens
        if (
            counted.source is Source.ESTIMATED or len(demand.models) > 1
        ):  # no token is shorter than a byte; a guess is no bound
            tokens = max(tokens, sum(len(part.encode("utf-8", "replace")) for part in text.texts))
        windows = [
            self._prices.context_tokens(
                opening.provider, model, longest=demand.long_context or opening.provider not in _SAYS_SO
            )
            for model in demand.models
        ]
        known = [window for window in windows if window is not None]
        default = self._settings.default_context_tokens
        context_tokens = max(known) if known and len(known) == len(windows) else max([default, *known])
        limits = Limits(context_tokens, self._settings.default_max_output_tokens)
        bound_of = partial(
            _bound, flavor, text=text, counted=tokens + text.tokens, provider=opening.provider, limits=limits
        )
        return Weighed(text, counted, bound_of(demand), bound_of)

    def check_bounded(self, most: Bound) -> None:
        """Raise Unbounded where the settings do not let a call pass that leaves so much open."""
        setting = self._settings.on_unbounded
        left_open = most.endless + (most.assumed if setting == "refuse" else [])
        if left_open and setting != "allow":
            raise Unbounded(
                "A hard budget is about this call, and what it may cost has no bound: "
                f"{'; '.join(dict.fromkeys(left_open))}. Bound it in the request, or leave it out."
            )

    def price(self, opening: Open, demand: Demand, most: Bound) -> tuple[int, bool]:
        """The most it may cost (nano-USD), and whether all of its models have a price."""
        at_most = most.most()
        if not demand.writes_cache and opening.provider in _SAYS_SO:
            at_most = msgspec.structs.replace(at_most, writes_cache=False)
        return self._prices.dearest_nusd(opening, demand.models or ("",), most.tiers, at_most)

    def _held(self, allowances: Sequence[Allowance], call: Open, demand: Demand, most: Bound) -> Held:
        return held_of(most, self.cost(allowances, call, demand, most))

    def cost(self, allowances: Sequence[Allowance], opening: Open, demand: Demand, most: Bound) -> int | None:
        """The most it may cost, where a budget is in USD and one of its models has a price.

        Raises BudgetExceeded where there is none, and `on_unpriced = "refuse"`.
        """
        if not any(each.budget.unit == "usd" for each in allowances):
            return None
        nusd, priced = self.price(opening, demand, most)
        if not priced and most.tokens and self._settings.on_unpriced == "refuse":
            raise BudgetExceeded(
                f"Workspace {opening.workspace!r} has a budget in USD, and the model {opening.request_model!r} has "
                "no price here."
            )
        return min(nusd, MOST) if priced or nusd else None


def _bound(flavor: Flavor, demand: Demand, *, text: Countable, counted: int, provider: str, limits: Limits) -> Bound:
    return bound(flavor, demand, text, counted, provider, limits)
