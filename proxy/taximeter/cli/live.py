"""`top` and `tail`: what is being used right now."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import click
import msgspec

from taximeter.cli.backend import Backend
from taximeter.cli.options import asks_what_comes, needs_proxy
from taximeter.cli.proxy import Refused
from taximeter.cli.show import OUTCOME_STYLES, console, count, echo, money, table, visible
from taximeter.control.answers.responses import UsageAggregateResponse, encode

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

SILENCE_S = 60.0
"""The live stream sends a comment every 15 s; four of them missing means it is gone."""

_decode = msgspec.json.Decoder(UsageAggregateResponse).decode
_event = msgspec.json.Decoder(dict[str, Any]).decode


@click.command()
@click.option("--by", "names", multiple=True, default=("workspace", "model"), show_default=True, help="Group by.")
@click.option("--minutes", type=click.IntRange(1, 1_440), default=15, show_default=True, help="How far back.")
@click.option("--every", type=click.FloatRange(0.5, 60), default=2.0, show_default=True, help="Seconds between looks.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="Rows.")
@click.option("--once", is_flag=True, help="Print once and end; so it is anyway where the output is no terminal.")
@asks_what_comes
def top(
    backend: Backend,
    params: dict[str, list[str]],
    as_json: bool,
    names: tuple[str, ...],
    minutes: int,
    every: float,
    limit: int,
    once: bool,
) -> None:
    """Who uses most just now, refreshed until Ctrl-C."""
    params = {**params, "group_by": list(names)}

    def look() -> bytes:
        since = datetime.now(UTC) - timedelta(minutes=minutes)
        return backend.usage({"from": [since.isoformat()], **params})

    if as_json:
        echo(look())
        return
    if once or not sys.stdout.isatty():
        console().print(_top(_decode(look()), names, limit))
        return
    from rich.live import Live

    with Live(_top(_decode(look()), names, limit), console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(every)
            live.update(_top(_decode(look()), names, limit), refresh=True)


def _top(answer: UsageAggregateResponse, names: tuple[str, ...], limit: int) -> RenderableType:
    minutes = _minutes(answer)
    parts = sorted(answer.groups, key=lambda part: (-(part.estimated_cost_usd or 0), -part.usage.total_tokens))
    figures = ("Calls", "Errors", "Calls/min", "Tokens/min", "Cost (USD)")
    rows = [
        (
            *(str(getattr(part, name) or "(none)") for name in names),
            count(part.usage.requests),
            count(part.usage.errors),
            f"{part.usage.requests / minutes:,.1f}",
            f"{part.usage.total_tokens / minutes:,.0f}",
            money(part.estimated_cost_usd),
        )
        for part in parts[:limit]
    ]
    return table([name.replace("_", " ").capitalize() for name in names], figures, rows)


def _minutes(answer: UsageAggregateResponse) -> float:
    """How long the answer's range is: --from and --to may have said another than --minutes."""
    now = datetime.now(UTC)
    since = now if answer.from_ is None else datetime.fromisoformat(answer.from_)
    until = now if answer.to is None else datetime.fromisoformat(answer.to)
    return max((until - since).total_seconds(), 1.0) / 60


@click.command()
@click.option("--lines", "-n", type=click.IntRange(0, 1_000), default=10, show_default=True, help="Past calls first.")
@click.option("--outcome", multiple=True, metavar="NAME", help="Only calls that ended so; can be repeated.")
@click.option("--no-follow", is_flag=True, help="End after the past calls.")
@asks_what_comes
def tail(
    backend: Backend,
    params: dict[str, list[str]],
    as_json: bool,
    lines: int,
    outcome: tuple[str, ...],
    no_follow: bool,
) -> None:
    """Calls as they end, one a line, until Ctrl-C."""
    params = {**params, "outcome": list(outcome)} if outcome else params
    if no_follow:
        _print(reversed(backend.records(params, lines) if lines else []), as_json)
        return
    proxy = needs_proxy(backend, "tail")
    with proxy.stream("/usage/live", params, silence_s=SILENCE_S) as answer:
        past = proxy.records(params, lines) if lines else []
        _print(reversed(past), as_json)
        shown = {each["event_id"] for each in past}
        _print((each for each in _events(answer.iter_bytes()) if each.get("event_id") not in shown), as_json)


def _events(chunks: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """The records of a server-sent event stream. Lines end in CR LF; JSON may hold U+2028, which is no line end."""
    held = b""
    for chunk in chunks:
        *lines, held = (held + chunk).split(b"\r\n")
        for line in lines:
            if line.startswith(b"data: "):
                yield _event(line[6:])


def _print(records: Any, as_json: bool) -> None:
    """Raises Refused where the proxy says that this caller may not watch any more."""
    out = console()
    for each in records:
        if "reason" in each:
            raise Refused(each["reason"], HTTPStatus.UNAUTHORIZED)
        if as_json:
            echo(encode(each))
        elif "records" in each:
            out.print(f"… {count(each['records'])} calls not shown: this terminal was too slow", style="yellow")
        else:
            out.print(_line(each), soft_wrap=True)


def _line(each: dict[str, Any]) -> Text:
    """One call: when, who, what, how much, how it ended."""
    from rich.text import Text

    moment = datetime.fromisoformat(each["ended_at"]).astimezone().strftime("%H:%M:%S")
    model = visible(each["response_model"] or each["request_model"] or "unknown")
    tokens = f"{count(each['input_tokens'])} → {count(each['output_tokens'])}"
    cost = each["cost_usd"]
    spent = money(None if cost is None else Decimal(str(cost)))
    took = "—" if each["duration_ms"] is None else f"{each['duration_ms']:,.0f} ms"
    tags = visible(" ".join(f"{name}={each[name]}" for name in ("task", "track", "document") if each[name]))
    outcome = str(each["outcome"])
    line = Text(f"{moment} ", style="dim")
    line.append(f"{visible(each['workspace']):<16} ", style="bold")
    line.append(f"{visible(each['provider'])}/{model} ".ljust(36))
    line.append(f"{tokens:>18}  {spent:>10}  {took:>10}  ")
    line.append(outcome, style=OUTCOME_STYLES.get(outcome, "red"))
    line.append(f"  {tags}" if tags else "", style="dim")
    return line
