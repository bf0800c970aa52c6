"""Arithmetic over sums of the past: a forecast with its error on the data so far, the same tokens at another price.

Pure: integers of nano-USD in, values out. Nothing here guesses at what it was not given.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import msgspec

from taximeter.core.prices import Card, cost_nusd
from taximeter.core.record import Operation, Outcome, Record, Source
from taximeter.core.totals import Totals

WEEK = 7
WEEKS = 4
"""How many of the same weekday before a day its expectation is the mean of."""
LEAST_DAYS = WEEK
"""Below a week of data a forecast would be a guess."""


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """How the same forecast would have done on each day of the data so far."""

    times: int
    """Days it was tried on: each with enough data before it and the whole horizon after it."""
    error: float | None
    """Mean absolute error as a fraction of what then came: 0.1 is ten per cent. None: it could not be tried."""
    bias: float | None
    """Mean signed error: above 0 it foretold too much."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What the rest of a period will cost, in nano-USD."""

    rest_nusd: int
    low_nusd: int | None
    high_nusd: int | None
    """The rest, off by the mean error so far in either direction; None where that is not known."""
    backtest: Backtest


def expected(days: Sequence[int], ahead: int) -> int:
    """The next `ahead` days in all, each the mean of the last WEEKS same weekdays. Needs LEAST_DAYS of data."""
    total = 0
    for number in range(len(days), len(days) + ahead):
        same = [days[at] for at in range(number % WEEK, len(days), WEEK)][-WEEKS:]
        total += (2 * sum(same) + len(same)) // (2 * len(same))
    return total


def backtest(days: Sequence[int], ahead: int) -> Backtest:
    """Forecast every `ahead` days of the data from the days before them, and compare."""
    errors = []
    for origin in range(LEAST_DAYS, len(days) - ahead + 1):
        came = sum(days[origin : origin + ahead])
        if came > 0:
            errors.append(expected(days[:origin], ahead) / came - 1)
    if not errors:
        return Backtest(times=0, error=None, bias=None)
    return Backtest(times=len(errors), error=fmean(map(abs, errors)), bias=fmean(errors))


def forecast(days: Sequence[int], today_nusd: int, ahead: int) -> Forecast | None:
    """What the rest of today and the `ahead` days after it will cost. None with less than LEAST_DAYS of whole days.

    `days`: the cost of each whole day until yesterday, oldest first, days without calls as 0.
    """
    if len(days) < LEAST_DAYS:
        return None
    today = expected(days, 1)
    later = expected(days, 1 + ahead) - today
    rest = max(0, today - today_nusd) + later
    tried = backtest(days, 1 + ahead)
    if tried.error is None:
        return Forecast(rest_nusd=rest, low_nusd=None, high_nusd=None, backtest=tried)
    off = round(rest * tried.error)
    return Forecast(rest_nusd=rest, low_nusd=max(0, rest - off), high_nusd=rest + off, backtest=tried)


def at_price(card: Card, used: Totals) -> int | None:
    """What the LLM tokens of these calls cost at another card, as text: nano-USD; None where it cannot price them.

    Exact for prices that are the same for every token. Where a card costs more above a number of input tokens, the
    calls are priced as that many calls of their mean size.
    """
    calls = max(1, used.llm_requests)
    if not card.above:
        whole = cost_nusd(card, _stand_in(used, 1))
        per_request = 0 if card.free else card.rates.request or 0
        return None if whole is None else whole + (calls - 1) * per_request // 1_000
    mean = cost_nusd(card, _stand_in(used, calls))
    return None if mean is None else mean * calls


def _stand_in(used: Totals, calls: int) -> Record:
    """One call with the mean figures of these."""
    return Record(
        request_id="",
        started_at=0,
        ended_at=0,
        workspace="",
        upstream="",
        provider="",
        api="chat",
        operation=Operation.LLM,
        outcome=Outcome.OK,
        input_source=Source.REPORTED,
        output_source=Source.REPORTED,
        input_tokens=round(used.llm_input_tokens / calls),
        cached_input_tokens=round(used.llm_cached_input_tokens / calls),
        cache_write_input_tokens=round(used.llm_cache_write_input_tokens / calls),
        output_tokens=round(used.llm_output_tokens / calls),
        reasoning_output_tokens=round(used.llm_reasoning_output_tokens / calls),
    )
