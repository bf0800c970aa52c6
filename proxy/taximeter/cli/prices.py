"""`prices`: what models on hardware of one's own cost, from what the hardware cost and what passed here meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import click
import msgspec

from taximeter.cli.backend import Backend
from taximeter.cli.options import asks_proxy
from taximeter.cli.proxy import Unreachable
from taximeter.cli.show import echo
from taximeter.cli.times import past
from taximeter.control.answers.responses import UsageAggregateResponse
from taximeter.core.errors import BadRequest, ConfigError
from taximeter.core.times import moment_us, shown, zone
from taximeter.pricebook.listed import read_prices
from taximeter.pricebook.local import Cost
from taximeter.pricebook.opencost import KINDS, allocations, of_name

FETCH_S = 60.0
US_PER_HOUR = 3_600_000_000
_decode = msgspec.json.Decoder(UsageAggregateResponse).decode


class Window(NamedTuple):
    """From when until before when, µs since epoch."""

    from_us: int
    to_us: int

    def __str__(self) -> str:
        return f"{shown(self.from_us)}/{shown(self.to_us)}"


class Asked(NamedTuple):
    """What all verbs of `prices` are told."""

    window: Window | None
    since: date | None
    output_weight: Decimal
    file: Path | None


@click.group()
def prices() -> None:
    """What models on hardware of your own cost, as dated entries of a price file."""


def _number(_: click.Context, param: click.Parameter, text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number <= 0:
        raise click.BadParameter(f"{text!r} is no number above 0.", param=param)
    return number


_SHARED = (
    click.option("--from", "from_", metavar="TIME", help="First moment: 7d, yesterday, 2026-11-22 or RFC 3339."),
    click.option("--to", metavar="TIME", help="First moment no longer included."),
    click.option("--tz", default="UTC", show_default=True, metavar="ZONE", help="IANA time zone of dates."),
    click.option("--since", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE",
                 help="First UTC day of the price; default: the day the time begins."),
    click.option("--output-weight", default="1", callback=_number, metavar="N", show_default=True,
                 help="What an output token costs, where an input token costs 1."),
    click.option("--write", "file", type=click.Path(dir_okay=False, path_type=Path),
                 help="Append the entries to this price file; default: only show them."),
)  # fmt: skip


def _prices_models(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command `backend` and `asked`."""

    @wraps(command)
    def run(
        backend: Backend, from_: str | None, to: str | None, tz: str, since: datetime | None, output_weight: Decimal,
        file: Path | None, **options: Any,
    ) -> None:  # fmt: skip
        place, now = zone(tz), datetime.now(UTC)
        if (from_ is None) != (to is None):
            raise BadRequest("Give --from and --to, or neither.", param="from")
        window = None
        if from_ is not None and to is not None:
            window = Window(*(moment_us(past(text, place, now), place, "from") for text in (from_, to)))
            if window.from_us >= window.to_us:
                raise BadRequest("--from is not before --to.", param="from")
        first = since.date() if since is not None else None
        command(backend=backend, asked=Asked(window, first, output_weight, file), **options)

    wrapped: Callable[..., None] = asks_proxy(run)
    for option in reversed(_SHARED):
        wrapped = option(wrapped)
    return wrapped


@prices.command()
@click.argument("source")
@click.option("--model", "models", multiple=True, required=True, metavar="PROVIDER/MODEL=NAME",
              help="A model, and the name under which OpenCost has its workload; can be repeated.")  # fmt: skip
@click.option("--aggregate", default="namespace", show_default=True, help="By what OpenCost is asked to add up.")
@click.option("--cost", "kind", type=click.Choice(list(KINDS)), default="total", show_default=True)
@_prices_models
def opencost(backend: Backend, asked: Asked, source: str, models: tuple[str, ...], aggregate: str, kind: str) -> None:
    """Price models by what OpenCost allocated to them and the tokens that passed here in that time.

    SOURCE is OpenCost's address (http://opencost:9003), or a file with its answer to /allocation (- is standard input).
    """
    found = allocations(_fetched(source, asked.window, aggregate), kind)
    costs = []
    for each in models:
        named, equals, name = each.rpartition("=")
        provider, model = _named(named if equals else "", "PROVIDER/MODEL=NAME")
        allocated = of_name(found, name)
        of = Window(*(moment_us(one.isoformat(), zone("UTC"), "window") for one in allocated[1:]))
        told = f"OpenCost {source}: {kind} cost of {name}"
        costs.append(_cost(backend, asked, of, provider, model, allocated.usd, told))
    _out(costs, asked.file)


@prices.command()
@click.option("--model", "named", required=True, metavar="PROVIDER/MODEL", help="The model that runs on them.")
@click.option("--usd-per-hour", required=True, callback=_number, metavar="USD", help="What one GPU costs an hour.")
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="How many it takes.")
@_prices_models
def gpu(backend: Backend, asked: Asked, named: str, usd_per_hour: Decimal, gpus: int) -> None:
    """Price a model by its GPUs' hours and the tokens that passed here in that time, idle hours included."""
    if asked.window is None:
        raise BadRequest("Give --from and --to: the hours that are to be paid.", param="from")
    provider, model = _named(named, "PROVIDER/MODEL")
    hours = Decimal(asked.window.to_us - asked.window.from_us) / US_PER_HOUR
    usd = usd_per_hour * gpus * hours
    told = f"{gpus} GPU at {usd_per_hour} USD an hour for {hours:.2f} hours"
    _out([_cost(backend, asked, asked.window, provider, model, usd, told)], asked.file)


def _named(text: str, like: str) -> tuple[str, str]:
    provider, slash, model = text.partition("/")
    if not (provider and slash and model):
        raise BadRequest(f"--model: {text!r} is not {like}.", param="model")
    return provider, model


def _fetched(source: str, window: Window | None, aggregate: str) -> bytes:
    """OpenCost's answer. Raises BadRequest, Unreachable."""
    if not source.startswith(("http://", "https://")):
        try:
            return sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        except OSError as error:
            raise BadRequest(f"{source}: cannot be read: {error.strerror}.", param="source") from None
    if window is None:
        raise BadRequest("Give --from and --to: OpenCost is asked for a time.", param="from")
    import httpx2

    query = urlencode({"window": str(window).replace("/", ","), "aggregate": aggregate, "accumulate": "true"})
    try:
        return httpx2.get(f"{source.rstrip('/')}/allocation?{query}", timeout=FETCH_S).content
    except httpx2.HTTPError as error:
        raise Unreachable(f"{source} does not answer: {error}") from None


def _cost(backend: Backend, asked: Asked, of: Window, provider: str, model: str, usd: Decimal, told: str) -> Cost:
    """What the model cost, with the tokens of that time; what is odd about those is said."""
    params = {
        "provider": [provider],
        "model": [model],
        "from": [shown(of.from_us) or ""],
        "to": [shown(of.to_us) or ""],
    }
    answer = _decode(backend.usage(params))
    used = answer.usage
    into = used.llm.input_tokens + used.embedding.input_tokens + used.rerank.input_tokens
    out = used.llm.output_tokens
    for number, what in (
        (used.unknown_requests, "calls whose use is not known: their tokens are missing"),
        (used.estimated_tokens, "tokens that are estimates"),
    ):
        if number:
            echo(f"{provider}/{model}: among them are {number:,} {what}.", err=True)
    if not answer.complete:
        echo("Some calls are still on their way into history.", err=True)
    return Cost(
        provider=provider,
        model=model,
        since=asked.since or datetime.fromtimestamp(of.from_us / 1_000_000, UTC).date(),
        usd=usd,
        input_tokens=into,
        output_tokens=out,
        output_weight=asked.output_weight,
        source=f"{told}, {of}: {usd:.2f} USD, {into:,} input and {out:,} output tokens",
    )


def _out(costs: list[Cost], file: Path | None) -> None:
    """Show the entries; with a file, append them to it, unless it would not hold then."""
    try:
        text = "\n".join(cost.entry() for cost in costs)
    except ValueError as error:
        raise BadRequest(f"{error}.".capitalize()) from None
    for line in text.splitlines():
        echo(line)
    if file is not None:
        _append(file, text)
        first = min(cost.since for cost in costs)
        echo(f"Appended to {file}. Then: taximeter reload; taximeter reprice --from {first}", err=True)


def _append(file: Path, text: str) -> None:
    before = file.read_text("utf-8") if file.exists() else ""
    fresh = file.with_name(f".{file.name}.new")
    try:
        fresh.write_text(before + ("\n" if before else "") + text, "utf-8")
        read_prices(fresh)
        if file.exists():
            fresh.chmod(file.stat().st_mode)
        fresh.replace(file)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from None
    finally:
        fresh.unlink(missing_ok=True)
