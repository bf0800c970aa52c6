"""Thresholds of budgets: which parts of one have to be used for word of it, and the word. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import quote

import msgspec

from taximeter.budgets.rule import Allowance, Budget


class ThresholdReached(msgspec.Struct, frozen=True, kw_only=True):
    """So much of a budget, soft or hard, is used in its period, or of what one value of it may use. Told once."""

    allowance: Allowance
    percent: int
    """The threshold (`budget.thresholds`); more may be used."""
    period: str
    """Its name (periods.Period.name)."""
    since_s: int
    """When (s since epoch) the period began; of a rolling window, the time in which it is told once."""
    spent: int
    """As counted: nano-USD, tokens, requests or milliseconds."""
    charged: int
    """For calls of which it is not known what they used."""
    at_us: int
    """When it was noticed (µs since epoch)."""

    @property
    def key(self) -> str:
        """The same for the same threshold, period and values; of no other. A budget of each workspace has one id in all
        of them, so the workspace is part of it; and what could be taken for a separator is escaped."""
        budget = self.allowance.budget
        names = (quote(each, safe="@") for each in (budget.workspace, *self.allowance.own))
        return ":".join((budget.id, *names, str(self.since_s), str(self.percent)))


LATE_S = 120
"""So long after a calendar period's end it is looked at, too: records of its last calls come later."""


def just_over_us(budget: Budget, now_us: int) -> int | None:
    """A moment (µs since epoch) of the calendar period that was over a moment ago; None: none was, or before the budget
    was made."""
    when, now_s = budget.when, now_us // 1_000_000
    if when.window_s or when.endless:
        return None
    start_s = when.start_s(now_s)
    if now_s - start_s >= LATE_S or budget.created_at >= start_s * 1_000_000:
        return None
    return when.start_s(start_s - 1) * 1_000_000


def reached(
    allowance: Allowance, spent: int, charged: int, thresholds: Iterable[int], now_us: int, of_us: int = 0
) -> Iterator[ThresholdReached]:
    """Those of these thresholds (per cent) that are reached as it stands, in the period of then (`of_us`) or now."""
    budget, when, now_s = allowance.budget, allowance.budget.when, (of_us or now_us) // 1_000_000
    since_s = now_s // when.window_s * when.window_s if when.window_s else when.start_s(now_s)
    for percent in thresholds:
        if 100 * (spent + max(0, charged)) >= percent * budget.limit:
            yield ThresholdReached(
                allowance=allowance,
                percent=percent,
                period=when.name(now_s),
                since_s=since_s,
                spent=spent,
                charged=charged,
                at_us=now_us,
            )
