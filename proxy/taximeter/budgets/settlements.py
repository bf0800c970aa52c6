"""Settling what budgets are charged for calls of which it was not known what they used: an operator knows better.

The settlement is a correction in the control process's own journal, so history, Redis and every budget follow, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec.structs import replace

from taximeter.budgets.responses import ChargeInfo, Settlement
from taximeter.budgets.tally import Tally, TallySum
from taximeter.core.correction import correction
from taximeter.core.errors import BadRequest, NotFound
from taximeter.core.holds import BUDGETS
from taximeter.core.record import Record
from taximeter.core.times import shown
from taximeter.core.views import NUSD_PER_USD, usd
from taximeter.sinks.history.read.charges import Charge

MOST = 2**53
"""Of tokens and nano-USD a settlement may say."""


class Charged(Protocol):
    """History's part."""

    async def charges(
        self, workspace: str | None = None, request_id: str | None = None, limit: int = 1_000
    ) -> list[Charge]: ...

    async def record(self, request_id: str) -> list[Record]: ...

    async def tallied(self, workspace: str, tallies: Sequence[Tally], now_us: int) -> list[TallySum]: ...


def charge_info(charge: Charge) -> ChargeInfo:
    """A charge as listed."""
    return ChargeInfo(
        request_id=charge.request_id,
        attempt=charge.attempt,
        workspace=charge.workspace,
        key_id=charge.key_id,
        task=charge.task,
        ended_at=shown(charge.ended_at),
        charged_tokens=charge.tokens,
        charged_usd=usd(charge.cost_nusd),
    )


async def settle(
    history: Charged, request_id: str, known: Settlement, write: Callable[[Record], None]
) -> list[ChargeInfo]:
    """Set what a request is charged to what is known now; returns what it was charged, each attempt.

    The cost becomes a cost like any other. Tokens stay charged: a correction has none. Where a request was tried
    several times, the last attempt that is charged takes what is known, the others cost nothing. History must hold
    every correction written before. Raises NotFound where nothing is charged, BadRequest where the amounts cannot be
    meant.
    """
    cost = known.usd * NUSD_PER_USD
    if not known.usd.is_finite() or cost != int(cost) or not (0 <= cost <= MOST and 0 <= known.tokens <= MOST):
        raise BadRequest("What a call used is 0 or more: tokens, and USD with at most nine decimals.", param="usd")
    charges = sorted(await history.charges(request_id=request_id), key=lambda charge: charge.attempt)
    if not charges:
        raise NotFound(f"Nothing is charged for the request {request_id[:128]!r}.", param="request_id")
    records = await history.record(request_id)
    for charge in charges:
        amounts = (known.tokens, int(cost)) if charge is charges[-1] else (0, 0)
        write(_settled(charge, records, *amounts))
    return [charge_info(charge) for charge in charges]


def _settled(charge: Charge, records: list[Record], tokens: int, cost_nusd: int) -> Record:
    usages = [each for each in records if each.kind == "usage" and each.attempt == charge.attempt]
    if not usages:
        raise NotFound(f"The record of the request {charge.request_id!r} is no longer kept.", param="request_id")
    mine = [each for each in records if each.attempt == charge.attempt]
    known_nusd = sum(each.cost_nusd or 0 for each in mine)

    def less(name: str, most: int) -> int | None:
        """The difference to at most so much, of what is charged under this name."""
        owed = sum(getattr(each, name) or 0 for each in mine)
        return min(most, owed) - owed or None

    return replace(
        correction(usages[0], 0, None),
        cost_nusd=max(0, cost_nusd - known_nusd) or None,
        tags={BUDGETS: usages[0].tags.get(BUDGETS, "")},
        charged_tokens=tokens - charge.tokens,
        charged_cost_nusd=-charge.cost_nusd,
        # Which of the tokens were input nobody says: they stay charged for either, never more than its bound.
        charged_input_tokens=less("charged_input_tokens", tokens),
        charged_output_tokens=less("charged_output_tokens", tokens),
        charged_audio_ms=less("charged_audio_ms", 0),
    )
