"""`budgets create | list | end` (in the data directory where no proxy runs) and `charges | settle`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec

from taximeter.budgets.responses import BudgetInfo, BudgetList, ChargeInfo, ChargeList, info, limit_of
from taximeter.budgets.store import BudgetStore
from taximeter.budgets.tally import UNITS
from taximeter.cli.options import place
from taximeter.cli.proxy import Proxy, acting
from taximeter.cli.show import console, count, echo, money, table
from taximeter.config import Settings
from taximeter.control.answers import responses
from taximeter.core.errors import BadRequest
from taximeter.node.audit import command_log


@click.group()
def budgets() -> None:
    """Budgets: how much a workspace, or a part of it, may use in a day, a month, any 24 hours, or at all."""


@budgets.command()
@click.option("--workspace", required=True, metavar="NAME", help="Whose.")
@click.option(
    "--key",
    "key_id",
    default="",
    metavar="ID",
    help="Only calls with this key; * (as for all of these): each by itself.",
)
@click.option("--task", default="", metavar="NAME", help="Only calls of this task.")
@click.option("--track", default="", metavar="NAME", help="Only calls of this track.")
@click.option("--document", default="", metavar="NAME", help="Only calls of this document.")
@click.option("--end-user", default="", metavar="NAME", help="Only calls of this end user.")
@click.option("--model", default="", metavar="NAME", help="Only calls that ask for this model.")
@click.option("--upstream", default="", metavar="NAME", help="Only calls to this upstream.")
@click.option("--usd", metavar="AMOUNT", help="Limit in USD.")
@click.option("--tokens", metavar="COUNT", help="Limit in tokens.")
@click.option("--input-tokens", metavar="COUNT", help="Limit in tokens of input.")
@click.option("--output-tokens", metavar="COUNT", help="Limit in tokens of answers.")
@click.option("--requests", metavar="COUNT", help="Limit in requests.")
@click.option("--seconds", metavar="COUNT", help="Limit in seconds of audio billed by time.")
@click.option(
    "--period",
    default="month",
    metavar="PERIOD",
    help="minute, hour, day, week, month, total, or 'rolling 30d', 'rolling 24h', 'rolling 10m'.",
    show_default=True,
)
@click.option("--tz", default="UTC", metavar="ZONE", help="Time zone in which the period begins.", show_default=True)
@click.option("--mode", type=click.Choice(["hard", "soft"]), default="hard", show_default=True, help="soft: only tell.")
@place
def create(url: str | None, config_file: Path | None, as_json: bool, **asked: str) -> None:
    """Make a budget. It counts what the period has used already."""
    given = {unit: amount for unit in UNITS if (amount := asked.pop(unit)) is not None}
    if len(given) != 1:
        raise BadRequest(f"Give the limit as one of {', '.join(f'--{unit}'.replace('_', '-') for unit in UNITS)}.")
    [(unit, amount)] = given.items()
    try:
        limit = Decimal(amount)
    except InvalidOperation:
        raise BadRequest(f"{amount!r} is no number.") from None
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            named: dict[str, Any] = {**asked, "unit": unit}
            made = info(_store(settings).create(limit=limit_of(limit, unit), **named), _now_us())
        else:
            made = proxy.send(BudgetInfo, "POST", "/budgets", {**asked, "unit": unit, "limit": str(limit)})
    echo(responses.encode(made) if as_json else f"{made.id}: {made.about} may use {_limit(made)}.")


@budgets.command("list")
@click.option("--workspace", metavar="NAME", help="Only this workspace's.")
@place
def listing(url: str | None, config_file: Path | None, as_json: bool, workspace: str | None) -> None:
    """List the budgets, and how they stand."""
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            found = [info(budget, _now_us()) for budget in _store(settings).listing()]
        else:
            found = proxy.send(BudgetList, "GET", "/budgets").data
    found = [each for each in found if workspace in (None, each.workspace)]
    if as_json:
        echo(responses.encode(found))
        return
    rows = [
        (each.id, each.about, each.mode, _limit(each), *(_amount(each, of) for of in _standing(each))) for each in found
    ]
    console().print(table(["Id", "For", "Mode"], ["Limit", "Spent", "Charged", "Held"], rows))


@budgets.command()
@click.argument("budget_id")
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, help="So many.", show_default=True)
@place
def show(url: str | None, config_file: Path | None, as_json: bool, budget_id: str, limit: int) -> None:
    """How what each value may use of a budget with * stands, those that used most first."""
    with _running(url, config_file) as proxy:
        path = f"/budgets/{quote(budget_id, safe='')}/allowances"
        raw = proxy.request("GET", path, params={"limit": str(limit)}).content
    if as_json:
        echo(raw)
        return
    rows = [
        (each.about, _limit(each), *(_amount(each, of) for of in _standing(each)))
        for each in msgspec.json.decode(raw, type=BudgetList).data
    ]
    console().print(table(["For"], ["Limit", "Spent", "Charged", "Held"], rows))


@budgets.command()
@click.option("--workspace", metavar="NAME", help="Only this workspace's.")
@place
def charges(url: str | None, config_file: Path | None, as_json: bool, workspace: str | None) -> None:
    """List the calls of which it is not known what they used, and what budgets are charged for them."""
    with _running(url, config_file) as proxy:
        query = {} if workspace is None else {"workspace": workspace}
        raw = proxy.request("GET", "/budgets/charges", params=query).content
    if as_json:
        echo(raw)
        return
    found = msgspec.json.decode(raw, type=ChargeList).data
    console().print(table(["Request", "For", "Ended"], ["Tokens", "Cost"], [_charge(each) for each in found]))


@budgets.command()
@click.argument("request_id")
@click.option("--usd", metavar="AMOUNT", default="0", help="What it cost.", show_default=True)
@click.option("--tokens", metavar="COUNT", default=0, help="What it used.", show_default=True)
@place
def settle(url: str | None, config_file: Path | None, as_json: bool, request_id: str, usd: str, tokens: int) -> None:
    """Say what such a call used; without --usd and --tokens, that it cost nothing."""
    with _running(url, config_file) as proxy:
        path = f"/budgets/charges/{quote(request_id, safe='')}"
        raw = proxy.request("POST", path, body={"usd": usd, "tokens": tokens}).content
    if as_json:
        echo(raw)
        return
    for each in msgspec.json.decode(raw, type=ChargeList).data:
        was = f"{count(each.charged_tokens)} tokens, {money(each.charged_usd)}"
        echo(f"{each.request_id} is settled; it was charged {was}.")


@budgets.command()
@click.argument("budget_id")
@place
def end(url: str | None, config_file: Path | None, as_json: bool, budget_id: str) -> None:
    """End a budget. Workers forget it within about a second."""
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            ended = info(_store(settings).end(budget_id), _now_us())
        else:
            ended = proxy.send(BudgetInfo, "DELETE", f"/budgets/{quote(budget_id, safe='')}")
    echo(responses.encode(ended) if as_json else f"{ended.id} is ended.")


def _store(settings: Settings) -> BudgetStore:
    """The budgets in the data directory, while no proxy runs on it."""
    data_dir = Path(settings.data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    return BudgetStore(data_dir, audit=command_log(settings))


@contextmanager
def _running(url: str | None, config_file: Path | None) -> Iterator[Proxy]:
    with acting(url, config_file) as (_, proxy):
        if proxy is None:
            raise BadRequest("No proxy runs here: what calls are charged is in its history. Start it, or give --url.")
        yield proxy


def _now_us() -> int:
    return time.time_ns() // 1_000


def _standing(each: BudgetInfo) -> tuple[Decimal | None, ...]:
    return each.spent, each.charged, each.held


def _charge(each: ChargeInfo) -> tuple[str, ...]:
    part = f" key {each.key_id}" if each.key_id else f" task {each.task}" if each.task else ""
    ended = (each.ended_at or "—")[:19].replace("T", " ")
    return each.request_id, f"{each.workspace}{part}", ended, count(each.charged_tokens), money(each.charged_usd)


def _limit(each: BudgetInfo) -> str:
    per = "" if each.period == "total" else f" {'an' if each.period == 'hour' else 'a'} {each.period}"
    if each.period.startswith("rolling "):
        per = f" in any {each.period.removeprefix('rolling ')}"
    zone = "" if each.tz == "UTC" else f" ({each.tz})"
    return f"{_amount(each, each.limit)}{per}{zone}"


def _amount(each: BudgetInfo, value: Decimal | None) -> str:
    if value is None:
        return "—"
    if each.unit == "usd":
        return money(value)
    return f"{value:,} seconds" if each.unit == "seconds" else f"{count(int(value))} {each.unit.replace('_', ' ')}"
