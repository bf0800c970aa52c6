"""Hard budgets and rates of one worker: which calls have one (a look-up in memory), and asking for it in Redis.

Only a call with a budget waits for Redis, and redis-py is imported only where there is a hard budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Container, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from taximeter.budgets.charges import Held
from taximeter.budgets.rates import Limit, Rates
from taximeter.budgets.rule import Allowance, Budget, Budgets, caps
from taximeter.core.errors import BadRequest, BudgetExceeded, BudgetReserved, BudgetUnavailable
from taximeter.core.holds import BUDGETS, RATES, reservation_of
from taximeter.core.record import Open
from taximeter.gateway.admission import rates as pacing
from taximeter.gateway.admission.capping import CAP_HEADER, cap_said
from taximeter.gateway.admission.holding import TIMEOUT_S, Holding
from taximeter.gateway.admission.refusals import RETRY_AFTER_S, refused
from taximeter.gateway.admission.slices import PREFIX, Slices
from taximeter.gateway.admission.telling import CLAMPED, budget_headers
from taximeter.gateway.admission.wanted import Prices, Want, Wanting, held_of
from taximeter.gateway.bounds.clamp import is_sealed

if TYPE_CHECKING:
    from taximeter.budgets.rate_windows import RateRefusal
    from taximeter.budgets.reservations import Refusal, Reserved, Spent
    from taximeter.budgets.slice_files import SliceFile
    from taximeter.config import BudgetSettings
    from taximeter.flavors.meter import Demand, Flavor, Prepared
    from taximeter.gateway.admission.wanted import Weighed
    from taximeter.gateway.bounds.readable import Headers
    from taximeter.gateway.metering.counting import Counting

log = logging.getLogger("taximeter.budget")

_T = TypeVar("_T")

WAIT_S = 5.0
"""How long a call waits for a Redis that was emptied or went back to be put together again; it takes about 2 s
(budgets.holdings)."""
CLAMPS = 3
"""How often a call is shortened to what is left, before others' calls have taken it again and it is refused."""
ASK_AGAIN_S = (0.05, 0.4)
"""The first and the longest pause between two looks meanwhile."""
LOOK_S = 0.25
"""How often, while calls hold parts of budgets, it is looked whether Redis still knows of them."""


class BudgetGate:
    """The budgets of one worker; `use` may replace them at any time."""

    def __init__(
        self,
        settings: BudgetSettings,
        *,
        connect: Callable[[], Holding],
        prices: Prices,
        counting: Counting,
        rates: Rates | None = None,
        slice_file: SliceFile | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """`connect` makes the holder, at the first call that has a budget or a rate. `slice_file`: where slices are
        written down, which `budget.on_unavailable = "slice"` needs."""
        self._settings = settings
        self._connect = connect
        self._holding: Holding | None = None
        self.wanting = Wanting(settings, prices, counting)
        self._now_us = now_us
        self._told = False
        self._flying: dict[str, Reserved] = {}
        """What calls in flight hold, or should."""
        self.pacing = pacing.RateGate(
            Rates() if rates is None else rates, lambda: None if self._holding is None else self._holding.windows
        )
        self._slices: Slices | None = None
        if settings.on_unavailable == "slice" and slice_file is not None:
            self._slices = Slices(settings.slice_percent, slice_file, self._flying, time.monotonic)
        self.hard = Budgets()
        self._all = Budgets()

    def use(self, budgets: Sequence[Budget]) -> None:
        """These are the budgets from now on; soft ones are the control process's affair, and told in quotes."""
        self.hard = Budgets(budget for budget in budgets if budget.mode == "hard")
        self._all = Budgets(budgets)

    def limited(self, others: Iterable[str] = ()) -> Container[str]:
        """Workspaces whose calls may have a hard budget or a rate, and these; false where there is none."""
        if self._settings.by_header or self.hard.everywhere:
            return pacing.Everywhere()
        return pacing.concerned(self.pacing.rates, (*self.hard.workspaces, *others))

    def rates_of(self, opening: Open) -> Sequence[Limit]:
        """The rates' limits that are about a call."""
        return self.pacing.rates.of(opening) if self.pacing.rates else ()

    def reads(self, workspace: str) -> bool:
        """Whether what calls of this workspace may use may have to be known."""
        everywhere = self._settings.by_header or bool(self.hard.everywhere)
        return everywhere or workspace in self.hard.workspaces or self.pacing.rates.weigh(workspace)

    def mark(self, opening: Open, *, free: bool = False) -> bool:
        """Write down, where a call has hard budgets or rates, which: Relay then asks before anything is sent.

        `free`: it can use nothing, but is a request. Returns whether it has budgets.
        """
        rates = () if free else self.rates_of(opening)
        ids = [each.budget.id for each in self.hard_of(opening) if not free or each.budget.unit == "requests"]
        if ids:
            opening.tags = {**opening.tags, BUDGETS: ",".join(ids)}
        if rates:
            opening.tags = {**opening.tags, RATES: ",".join(dict.fromkeys(limit.rate for limit in rates))}
        return bool(ids)

    def check_cap(self, opening: Open, headers: Headers) -> None:
        """Raise BadRequest where a call caps what cannot be capped; nothing where calls may not cap."""
        if self._settings.by_header and cap_said(headers) is not None and opening.track is None:
            raise BadRequest(f"{CAP_HEADER} caps a track, and this call names none.", param=CAP_HEADER)

    def weighs(self, opening: Open) -> bool:
        """Whether it has to be known what a call may use."""
        return bool(self.hard_of(opening)) or any(limit.kind == "tokens" for limit in self.rates_of(opening))

    def hard_of(self, opening: Open) -> Sequence[Allowance]:
        """What of hard budgets a call counts against."""
        found = self.hard.of(opening)
        return (*found, *caps(opening)) if self._settings.by_header else found

    async def standing(self, opening: Open) -> list[tuple[Allowance, Spent | None]]:
        """What of all budgets a call would count against, soft ones too, and how it stands; None: Redis does not
        answer."""
        allowances = self._all.of(opening)
        if not allowances:
            return []
        from taximeter.sinks.redis.asking import within
        from taximeter.sinks.redis.client import ERRORS

        if self._holding is None:
            self._holding = self._connect()
        try:
            spent = await within(self._holding.spent(allowances, self._now_us()), TIMEOUT_S)
            return list(zip(allowances, spent, strict=True))
        except ERRORS:
            return [(allowance, None) for allowance in allowances]

    def refusal(
        self, allowance: Allowance, stands: Spent, amount: int, *, later: bool = False
    ) -> BudgetExceeded | BudgetReserved | None:
        """What a call that may use so much of an allowance would be refused with, as it stands.

        `later`: it would be shortened to what is left, once calls in flight have ended.
        """
        from taximeter.budgets.reservations import Refusal

        budget = allowance.budget
        left = budget.limit - stands.spent - stands.charged
        over = left <= 0 or amount > left  # as reserve.lua decides
        if budget.mode != "hard" or not (over or stands.held + amount > left):
            return None
        unheld = max(0, left - stands.held)
        refusal = Refusal(allowance, stands.spent, stands.charged, over=over and not (later and left > 0))
        return refused(refusal, [(allowance, unheld)], self._now_us())

    def shortened(
        self,
        unheld: Sequence[tuple[Allowance, int]],
        weighed: Weighed,
        opening: Open,
        flavor: Flavor,
        demand: Demand,
        prepared: Prepared,
        headers: Headers,
    ) -> int | None:
        """To how many tokens the answer of a call that wants more than is left would be bounded; None: it is refused.

        `unheld`: its hard allowances, with what is left of each and not held. Raises what `Wanting.cost` does.
        """
        if not self._settings.clamp or prepared.reading is not None or is_sealed(headers):
            return None
        cost_nusd = self.wanting.cost([each for each, _ in unheld], opening, demand, weighed.bound)
        want = Want(held_of(weighed.bound, cost_nusd), weighed)
        shorter = self.wanting.clamp(want, unheld, opening, flavor, demand, prepared.body)
        return None if shorter is None else shorter[2]

    async def close(self) -> None:
        """Close the connection to Redis, where there is one."""
        await self.pacing.settled()
        if self._slices is not None:
            await self._quietly(self._slices.close(self._holding))
        if self._holding is not None:
            await self._holding.close()

    async def hold(
        self, opening: Open, flavor: Flavor, prepared: Prepared, tokenizer: str, headers: Headers
    ) -> Held | None:
        """Hold an upper bound of what the call may use, of every hard budget it has, and count it in its rates; returns
        the bound.

        With `budget.clamp` the call is shortened to what is left: then `prepared` has another body. None: it has no
        limit any more. Raises RateExceeded, BudgetExceeded, BudgetReserved or BudgetUnavailable; and what `Wanting.of`
        does.
        """
        from taximeter.budgets.rate_windows import RateRefusal
        from taximeter.budgets.reservations import Refusal, Reserved

        demand, limits = prepared.demand, self.rates_of(opening)
        marked = opening.tags.get(BUDGETS, "").split(",")
        budgets = [each for each in self.hard.of(opening) if each.budget.id in marked]  # no other: one made since
        if self._settings.by_header:
            budgets += caps(opening, cap_said(headers), raises=self._settings.by_header_raises)
        if not budgets and not limits:  # ended a moment ago
            return None
        if opening.attempt > 1:
            await self.pacing.settled()  # else the attempt before may still count as a call at once
        want = None
        if demand is not None and (budgets or any(limit.kind == "tokens" for limit in limits)):
            want = await self.wanting.of(budgets, opening, flavor, demand, tokenizer)
        held = Held(0, None, budgets=False) if want is None else want.held
        body, answer_tokens = prepared.body, None
        for attempt in range(CLAMPS + 2):
            wanted = [] if want is None else want.of(budgets, opening.attempt)
            reserved = await self._reserve(opening, wanted, self.pacing.wanted(limits, held), held)
            if isinstance(reserved, RateRefusal):
                raise pacing.refused(reserved)
            if not isinstance(reserved, Refusal):
                break
            if not reserved.over and await self._given_back(wanted):
                continue
            assert want is not None and demand is not None  # noqa: S101 - only then it has budgets
            left = [each for each in zip(budgets, reserved.unheld, strict=True) if each[1] >= 0]
            shorter = None
            if self._settings.clamp and attempt < CLAMPS and prepared.reading is None and not is_sealed(headers):
                shorter = self.wanting.clamp(want, left, opening, flavor, demand, prepared.body)
                unheld = [(reserved.allowance, reserved.unheld_later)]
                if shorter is None and self.wanting.clamp(want, unheld, opening, flavor, demand, prepared.body):
                    reserved = msgspec.structs.replace(reserved, over=False)  # it fits once others have ended
            if shorter is None:
                raise refused(reserved, left, self._now_us())
            want, body, answer_tokens = shorter
            held = want.held
        prepared.body = body
        if isinstance(reserved, Reserved):
            if reserved.unheld:
                stand = [each for each in zip(budgets, reserved.unheld, strict=True) if not each[0].cap]
                held.told += budget_headers(stand, self._now_us())
            if reserved.admitted is not None:
                held.told += pacing.rate_headers(reserved.admitted.stands)
                self.pacing.began(reserved.admitted, held)
        if answer_tokens is not None:
            held.told.append((CLAMPED, b"%d" % answer_tokens))
        return held

    def let_go(self, call: Open) -> None:
        """A call's record is written: counting that lets go what the call held; in rates it counts as what it used."""
        self._flying.pop(reservation_of(call), None)
        self.pacing.ended(call)
        if self._slices is not None:
            self._slices.ended(reservation_of(call), call.event_id)

    async def watch(self) -> None:
        """For ever: see that Redis knows what calls in flight hold, and what was admitted; else it is told again."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if self._flying:
                    await self.look()
                if self._holding is not None and self.pacing.rates:
                    await self.look_at_rates()
                if self._holding is not None and self._slices is not None and not self._slices.idle:
                    await self.look_at_slices()
            except Exception:  # a worker that cannot look goes on all the same
                log.exception("cannot see whether Redis knows what calls in flight hold")

    async def look(self) -> None:
        """Hold again what calls in flight hold in another epoch than it is now; while Redis is away, nothing."""
        from taximeter.budgets.reservations import Reserved
        from taximeter.sinks.redis.asking import within
        from taximeter.sinks.redis.client import ERRORS

        assert self._holding is not None  # noqa: S101
        with contextlib.suppress(*ERRORS):
            workspaces = sorted({held.workspace for held in self._flying.values()})
            epochs = await within(self._holding.changed(workspaces), TIMEOUT_S)
            stale = {
                call: held
                for call, held in self._flying.items()
                if epochs.get(held.workspace, held.epoch) != held.epoch or not held.epoch
            }
            renewed = await asyncio.gather(
                *(
                    self._holding.reserve(call, held.wanted, self._now_us(), in_flight=True)
                    for call, held in stale.items()
                )
            )
            for call, held in zip(stale, renewed, strict=True):
                if call in self._flying and isinstance(held, Reserved):
                    self._flying[call] = held
                elif call.startswith(PREFIX) and call not in self._flying:  # given back meanwhile
                    await self._holding.release(stale[call].workspace, [call])

    async def look_at_rates(self) -> None:
        """See RateGate.look; while Redis is away, nothing."""
        await self._quietly(self.pacing.look())

    async def look_at_slices(self) -> None:
        """See Slices.look; while Redis is away, nothing."""
        assert self._slices is not None and self._holding is not None  # noqa: S101
        await self._quietly(self._slices.look(self._holding, self._in_force, self._now_us()))

    async def _given_back(self, wanted: Sequence[tuple[Allowance, int]]) -> bool:
        """A call lacks what others hold: whether slices of ours were among it, so that it is worth to ask again."""
        if self._slices is None or self._holding is None:
            return False
        return bool(await self._quietly(self._slices.give_back(self._holding, wanted)))

    def _in_force(self, allowance: Allowance) -> bool:
        return allowance.budget in self.hard.of_workspace(allowance.budget.workspace)

    async def _quietly(self, work: Coroutine[Any, Any, _T]) -> _T | None:
        """What `work` gives; None where Redis does not answer."""
        from taximeter.sinks.redis.asking import within
        from taximeter.sinks.redis.client import ERRORS

        with contextlib.suppress(*ERRORS):
            return await within(work, TIMEOUT_S)
        return None

    async def _reserve(
        self, opening: Open, wanted: Sequence[tuple[Allowance, int]], limits: Sequence[tuple[Limit, int]], held: Held
    ) -> Reserved | Refusal | RateRefusal | None:
        """Hold the amounts, or say why not. Waits, bounded, for a Redis that is being put together again.

        None: Redis cannot be asked, and the call passes all the same. Raises BudgetUnavailable.
        """
        from taximeter.budgets.reservations import Lost, Reserved
        from taximeter.sinks.redis.asking import answered, is_ours
        from taximeter.sinks.redis.client import ERRORS

        if self._holding is None:
            self._holding = self._connect()
        call, pause_s = reservation_of(opening), ASK_AGAIN_S[0]
        until = asyncio.get_running_loop().time() + WAIT_S
        while True:
            away = True
            try:
                if wanted:
                    found = await self._holding.reserve(call, wanted, self._now_us(), rates=limits)
                else:
                    found = await self._holding.admit(call, opening.workspace, limits)
            except ERRORS as error:
                away = not (is_ours(error) or answered(error))  # our own exhaustion, a full Redis: no outage
                why = str(error)
                break
            if isinstance(found, Reserved):
                if self._told:
                    log.warning("budgets can be checked again")
                self._told = False
                if wanted:
                    self._flying[call] = found
                    if self._slices is not None:
                        self._slices.served(wanted)
            if not isinstance(found, Lost):
                return found
            if asyncio.get_running_loop().time() >= until:
                why = "Redis lost what was counted and held, and it is not rebuilt yet"
                break
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, ASK_AGAIN_S[1])
        choice = self._settings.on_unavailable if away else "refuse"
        if not self._told:
            log.error("budgets cannot be checked, calls %s: %s", _CHOICES[choice], why)
        self._told = True
        if choice == "allow" and wanted:
            self._flying[call] = Reserved(wanted, "")  # held as soon as it can be
        if choice == "refuse" or (choice == "slice" and not self._within_slices(opening, wanted, limits, held)):
            raise BudgetUnavailable("Budgets cannot be checked now. Try again.", retry_after_s=RETRY_AFTER_S)
        return None

    def _within_slices(
        self, opening: Open, wanted: Sequence[tuple[Allowance, int]], limits: Sequence[tuple[Limit, int]], held: Held
    ) -> bool:
        """Whether a call that Redis cannot be asked about may pass on what this worker has put aside."""
        call = reservation_of(opening)
        if wanted and (self._slices is None or not self._slices.take(call, wanted)):
            return False
        return self.pacing.admit_locally(call, opening.workspace, limits, held, self._settings.slice_percent)


_CHOICES = {"allow": "are allowed", "refuse": "are refused", "slice": "go on within slices"}
