"""`stats`, `by-workspace` … `by-user`, `range`, `costs`: who used what, and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click
import msgspec
from msgspec import UNSET

from taximeter.cli.backend import Backend
from taximeter.cli.options import asks_usage
from taximeter.cli.show import Figures, bar, console, count, echo, money, table
from taximeter.cli.times import past
from taximeter.control.answers import responses
from taximeter.control.answers.responses import UsageAggregateResponse, UsageGroup

if TYPE_CHECKING:
    from rich.console import Console

COSTS_DAYS = 30

_decode = msgspec.json.Decoder(UsageAggregateResponse).decode


@click.command()
@asks_usage
def stats(backend: Backend, params: dict[str, list[str]], as_json: bool) -> None:
    """Calls, tokens and cost in all."""
    raw = backend.usage(params)
    if as_json:
        echo(raw)
        return
    _stats(console(), _decode(raw))


def _breakdown(verb: str, name: str, title: str, words: str = "") -> click.Command:
    @click.command(verb, help=f"Calls, tokens and cost by {words or name}, the most expensive first.")
    @click.option("--sort", type=click.Choice(list(ORDERS)), default="cost", show_default=True, help="Largest first.")
    @click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N; the total stays whole.")
    @asks_usage
    def command(backend: Backend, params: dict[str, list[str]], as_json: bool, sort: str, limit: int | None) -> None:
        answer = _decode(backend.usage({**params, "group_by": [name]}))
        parts = sorted(answer.groups, key=lambda part: ORDERS[sort](part, str(getattr(part, name) or "")))
        answer.groups, left = parts[:limit], parts[limit:] if limit is not None else []
        if as_json:
            echo(responses.encode(answer))
            return
        rows = [(str(getattr(part, name) or "(none)"), *_figures(part)) for part in answer.groups]
        out = console()
        out.print(table([title], _heads(answer), [*rows, ("Total", *_figures(answer))] if len(parts) > 1 else rows))
        if left:
            calls = sum(part.usage.requests for part in left)
            out.print(f"{count(len(left))} more, with {count(calls)} call{'' if calls == 1 else 's'}", style="dim")
        _notes(out, answer)

    return command


def _weight(part: UsageGroup, name: str) -> tuple[Any, ...]:
    return -(part.estimated_cost_usd or 0), -part.usage.total_tokens, -part.usage.requests, name


ORDERS: dict[str, Callable[[UsageGroup, str], tuple[Any, ...]]] = {
    "cost": _weight,
    "tokens": lambda part, name: (-part.usage.total_tokens, *_weight(part, name)),
    "calls": lambda part, name: (-part.usage.requests, *_weight(part, name)),
    "errors": lambda part, name: (-part.usage.errors, *_weight(part, name)),
    "name": lambda part, name: (name, *_weight(part, name)),
}
"""How groups are ordered."""


by_workspace = _breakdown("by-workspace", "workspace", "Workspace")
by_provider = _breakdown("by-provider", "provider", "Provider")
by_model = _breakdown("by-model", "model", "Model")
by_task = _breakdown("by-task", "task", "Task Type")
by_key = _breakdown("by-key", "key_id", "Key", "proxy key")
by_user = _breakdown("by-user", "end_user", "End user", "end user")


@click.command("range")
@click.option("--start", required=True, metavar="TIME", help="First moment or day.")
@click.option("--end", required=True, metavar="TIME", help="First moment or day no longer included.")
@asks_usage
def range_(backend: Backend, params: dict[str, list[str]], as_json: bool, start: str, end: str) -> None:
    """One range: the totals, and each day of it. Ranges are half-open: --end is the first day not included."""
    place, now = _zone(params), datetime.now(UTC)
    asked = {"from": [past(start, place, now)], "to": [past(end, place, now)]}
    raw = backend.usage({**params, **asked, "window": ["day"]})
    if as_json:
        echo(raw)
        return
    answer = _decode(raw)
    out = console()
    out.print(f"From {answer.from_} until before {answer.to}")
    _stats(out, answer)
    if answer.series:
        out.print()
        out.print(table(["Day"], _heads(answer), [(_day(part, place), *_figures(part)) for part in answer.series]))


@click.command()
@asks_usage
def costs(backend: Backend, params: dict[str, list[str]], as_json: bool) -> None:
    """Cost of each day as bars; the last 30 days unless --from says otherwise."""
    place = _zone(params)
    if "from" not in params:
        first = datetime.now(place).date() - timedelta(days=COSTS_DAYS - 1)
        params = {**params, "from": [first.isoformat()]}
    raw = backend.usage({**params, "window": ["day"]})
    if as_json:
        echo(raw)
        return
    answer = _decode(raw)
    out = console()
    out.print(_bars({_day(part, place): part for part in answer.series}, charged=answer.charge_usd is not UNSET))
    _amounts(out, answer)
    _notes(out, answer)


FIGURES = ("Calls", "Input", "Output", "Tokens", "Cost (USD)")
CHARGE = "Charge (USD)"
"""Where there are plans, and whoever asks may see what customers pay."""


def _heads(answer: UsageAggregateResponse) -> tuple[str, ...]:
    return FIGURES if answer.charge_usd is UNSET else (*FIGURES, CHARGE)


def _bars(days: dict[str, UsageGroup], *, charged: bool) -> Figures:
    """A line a day from the first with calls to the last, those without any too."""
    shown = table(["Day"], ["Calls", "Cost (USD)", *([CHARGE] if charged else [])], [])
    shown.add_column("")
    largest = max((part.estimated_cost_usd or Decimal(0) for part in days.values()), default=Decimal(0))
    day, last = (date.fromisoformat(pick(days)) for pick in (min, max)) if days else (date.max, date.min)
    while day <= last:
        part = days.get(day.isoformat())
        cost = Decimal(0) if part is None else part.estimated_cost_usd
        calls = 0 if part is None else part.usage.requests
        charge = [money(Decimal(0)) if part is None else _charge(part)] if charged else []
        shown.add_row(day.isoformat(), count(calls), money(cost), *charge, bar(cost or Decimal(0), largest))
        day += timedelta(days=1)
    return shown


def _stats(out: Console, answer: UsageAggregateResponse) -> None:
    usage = answer.usage
    out.print(f"Total Calls: {count(usage.requests)}")
    out.print(f"Total Tokens: {count(usage.total_tokens)}")
    _amounts(out, answer)
    out.print()
    rows = [
        ("LLM", count(usage.llm.requests), count(usage.llm.input_tokens), count(usage.llm.cached_input_tokens),
         count(usage.llm.output_tokens), count(usage.llm.reasoning_output_tokens)),
        ("Embedding", count(usage.embedding.requests), count(usage.embedding.input_tokens), "", "", ""),
        ("Rerank", count(usage.rerank.requests), count(usage.rerank.input_tokens), "", "", ""),
    ]  # fmt: skip
    out.print(table(["Operation"], ["Calls", "Input", "of it cached", "Output", "of it reasoning"], rows))
    _notes(out, answer)


def _amounts(out: Console, answer: UsageAggregateResponse) -> None:
    out.print(f"Estimated Cost: {_cost(answer)}")
    if answer.charge_usd is not UNSET:
        out.print("Charge: " + ("unknown" if answer.charge_usd is None else f"{_charge(answer)} USD"))


def _notes(out: Console, answer: UsageAggregateResponse) -> None:
    """What the figures do not hold, where there is something."""
    usage = answer.usage
    told = (
        (usage.errors, "attempt", "ended in an error or a refusal"),
        (usage.unknown_requests, "call", "of whose usage nothing is known"),
        (answer.unpriced_requests, "call", "without a price: not in the cost"),
        (answer.uncharged_requests or 0, "call", "without a charge"),
        (usage.counted_tokens, "token", "counted here, because the provider reported none"),
        (usage.estimated_tokens, "token", "estimated from bytes"),
        (usage.rerank.search_units, "search unit", "of rerankers"),
    )
    for number, noun, what in told:
        if number:
            out.print(f"{count(number)} {noun}{'' if number == 1 else 's'} {what}", style="dim")
    if answer.charge_note:
        out.print(answer.charge_note, style="dim")
    if not answer.complete:
        out.print(f"Not everything that has ended is in: {answer.lag_seconds:.1f} s behind.", style="yellow")


def _figures(part: UsageGroup | UsageAggregateResponse) -> tuple[str, ...]:
    usage = part.usage
    tokens_in = usage.llm.input_tokens + usage.embedding.input_tokens + usage.rerank.input_tokens
    return (
        count(usage.requests),
        count(tokens_in),
        count(usage.llm.output_tokens),
        count(usage.total_tokens),
        money(part.estimated_cost_usd),
        *(() if part.charge_usd is UNSET else (_charge(part),)),
    )


def _charge(part: UsageGroup | UsageAggregateResponse) -> str:
    return money(None if part.charge_usd is UNSET else part.charge_usd)


def _cost(answer: UsageAggregateResponse) -> str:
    return "unknown (no price)" if answer.estimated_cost_usd is None else f"{money(answer.estimated_cost_usd)} USD"


def _zone(params: dict[str, list[str]]) -> ZoneInfo:
    from taximeter.core.times import zone

    return zone(params.get("tz", ["UTC"])[0])


def _day(part: UsageGroup, place: ZoneInfo) -> str:
    return datetime.fromisoformat(str(part.start)).astimezone(place).date().isoformat()
