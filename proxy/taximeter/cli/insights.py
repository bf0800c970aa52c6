"""`trends`, `peaks`, `forecast`, `alternatives`: what the sums of the past say."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click
import msgspec

from taximeter.cli.backend import Backend
from taximeter.cli.options import asks_usage
from taximeter.cli.show import bar, console, count, echo, money, table
from taximeter.control.answers import responses
from taximeter.control.answers.insights import Alternatives, Forecast, Peaks, TaskAlternatives, Trend, Trends
from taximeter.core.figures import UNKNOWN, change

if TYPE_CHECKING:
    from rich.console import Console

Params = dict[str, list[str]]

DIMENSIONS = ("workspace", "provider", "model", "task", "operation", "key_id")


@click.command()
@click.option("--by", type=click.Choice(DIMENSIONS), default="model", show_default=True, help="What is compared.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N; the total stays whole.")
@asks_usage
def trends(backend: Backend, params: Params, as_json: bool, by: str, limit: int | None) -> None:
    """A range against the one of the same length before it; the last 7 days unless --from says otherwise."""
    answer = msgspec.json.decode(backend.insight("trends", {**params, "group_by": [by]}), type=Trends)
    answer.groups = answer.groups[:limit]
    if as_json:
        echo(responses.encode(answer))
        return
    out = console()
    out.print(f"{answer.from_} until before {answer.to}, against as long before")
    rows = [_row(str(getattr(each, by) or "(none)"), each) for each in answer.groups]
    figures = ["Calls", "Before", "Change", "Cost (USD)", "Before", "Change"]
    out.print(table([by.capitalize()], figures, [*rows, _row("Total", answer.total)]))
    if answer.before_recorded_from:
        out.print(
            f"Nothing is recorded before {answer.before_recorded_from}: the range before is not whole.", style="dim"
        )
    _incomplete(out, answer)


@click.command()
@asks_usage
def peaks(backend: Backend, params: Params, as_json: bool) -> None:
    """Calls by hour of the day; the last 30 days unless --from says otherwise."""
    raw = backend.insight("peaks", params)
    if as_json:
        echo(raw)
        return
    answer = msgspec.json.decode(raw, type=Peaks)
    out = console()
    shown = table(["Hour"], ["Calls", "Tokens", "Cost (USD)"], [])
    shown.add_column("")
    largest = Decimal(max(each.usage.requests for each in answer.hours))
    for each in answer.hours:
        usage = each.usage
        bars = bar(Decimal(usage.requests), largest)
        shown.add_row(
            f"{each.hour:02}:00",
            count(usage.requests),
            count(usage.total_tokens),
            money(usage.estimated_cost_usd),
            bars,
        )
    out.print(shown)
    if answer.busiest:
        busiest = answer.busiest[0]
        out.print(f"Busiest: {busiest.start} with {count(busiest.usage.requests)} calls. Hours are of {answer.tz}.")
    _incomplete(out, answer)


@click.command()
@asks_usage
def forecast(backend: Backend, params: Params, as_json: bool) -> None:
    """This month's cost until its end, and how far off such forecasts were on the data so far."""
    raw = backend.insight("forecast", params)
    if as_json:
        echo(raw)
        return
    answer = msgspec.json.decode(raw, type=Forecast)
    out = console()
    out.print(f"{answer.month} until now: {money(answer.spent_usd)}")
    if answer.month_end_usd is None:
        out.print(f"No forecast: {answer.basis_days} whole days of data, and a week is needed.")
    else:
        span = "" if answer.low_usd is None else f", between {money(answer.low_usd)} and {money(answer.high_usd)}"
        out.print(f"Forecast for its end: {money(answer.month_end_usd)}{span}")
        out.print(f"Made from {answer.basis_days} whole days: {answer.method}.")
        out.print(_error(answer))
    if answer.unpriced_requests:
        out.print(f"{_calls(answer.unpriced_requests)} without a price: not in the cost", style="dim")
    _incomplete(out, answer)


@click.command()
@click.option("--candidate", multiple=True, metavar="PROVIDER/MODEL", help="A further model to compare.")
@asks_usage
def alternatives(backend: Backend, params: Params, as_json: bool, candidate: tuple[str, ...]) -> None:
    """What each task's tokens cost at other models' list prices: the same tokens, and nothing more.

    Compared are the models in use and each --candidate; nothing is said of whether one could do the work.
    """
    raw = backend.insight("alternatives", {**params, **({"candidate": list(candidate)} if candidate else {})})
    if as_json:
        echo(raw)
        return
    answer = msgspec.json.decode(raw, type=Alternatives)
    out = console()
    out.print(f"Meaning: {answer.meaning}.")
    for each in answer.tasks:
        out.print()
        _task(out, each)
    if not answer.tasks:
        out.print("No LLM calls with a known cost in this range.")
    if answer.unpriced:
        out.print(f"Without a price, so not compared: {', '.join(answer.unpriced)}", style="dim")
    _incomplete(out, answer)


def _task(out: Console, task: TaskAlternatives) -> None:
    tokens = f"{count(task.input_tokens)} → {count(task.output_tokens)} tokens"
    out.print(f"{task.task or '(none)'}: {_calls(task.requests)}, {tokens}, {money(task.estimated_cost_usd)}")
    rows = [
        (f"{each.provider}/{each.model}", money(each.estimated_cost_usd), money(each.difference_usd))
        for each in task.alternatives
    ]
    out.print(table(["Same tokens at"], ["Cost (USD)", "Difference"], rows))
    out.print(f"Done by {', '.join(task.models)}", style="dim")
    if task.left_out_requests:
        out.print(f"{_calls(task.left_out_requests)} of models without a known cost left out", style="dim")


def _row(name: str, trend: Trend) -> tuple[str, ...]:
    now, then = trend.now, trend.before
    return (
        name,
        count(now.requests),
        count(then.requests),
        change(now.requests, then.requests) or UNKNOWN,
        money(now.estimated_cost_usd),
        money(then.estimated_cost_usd),
        change(now.estimated_cost_usd, then.estimated_cost_usd) or UNKNOWN,
    )


def _calls(number: int) -> str:
    return f"{count(number)} call{'' if number == 1 else 's'}"


def _error(answer: Forecast) -> str:
    if answer.mean_error is None or answer.bias is None:
        return "How far off that may be is not known: there is too little data to have tried it on."
    way = "too much" if answer.bias > 0 else "too little"
    return (
        f"Tried on {answer.backtests} days of the data so far it was off by {answer.mean_error:.0%} on average, "
        f"by {abs(answer.bias):.0%} {way} in all."
    )


def _incomplete(out: Console, answer: Any) -> None:
    if not answer.complete:
        out.print(f"Not everything that has ended is in: {answer.lag_seconds:.1f} s behind.", style="yellow")
