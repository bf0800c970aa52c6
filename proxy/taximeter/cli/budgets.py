"""`budgets create | list | end` (in the data directory where no proxy runs) and `charges | settle`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from taximeter.budgets.file import BudgetFile
from taximeter.budgets.shown import BudgetInfo, BudgetList, ChargeInfo, ChargeList, info, limit_of
from taximeter.budgets.store import BudgetRing
from taximeter.cli.options import place
from taximeter.cli.proxy import Proxy, acting
from taximeter.cli.show import console, count, echo, money, table
from taximeter.config import Settings, load
from taximeter.control.answers import responses as shapes
from taximeter.core.errors import BadRequest

Choices = dict[str, str]


@click.group()
def budgets() -> None:
    """Budgets: how much a workspace, a key or a task may use in a day, a month, or at all."""


@budgets.command()
@click.option("--workspace", required=True, metavar="NAME", help="Whose.")
@click.option("--key", "key_id", default="", metavar="ID", help="Only calls with this key.")
@click.option("--task", default="", metavar="NAME", help="Only calls of this task.")
@click.option("--usd", metavar="AMOUNT", help="Limit in USD.")
@click.option("--tokens", metavar="COUNT", help="Limit in tokens.")
@click.option("--period", type=click.Choice(["day", "month", "total"]), default="month", show_default=True)
@click.option("--mode", type=click.Choice(["hard", "soft"]), default="hard", show_default=True, help="soft: only tell.")
@place
def create(
    url: str | None, config_file: Path | None, as_json: bool, usd: str | None, tokens: str | None, **asked: str
) -> None:
    """Make a budget. It counts what the period has used already."""
    if (usd is None) == (tokens is None):
        raise BadRequest("Give the limit as --usd or as --tokens.")
    unit = "usd" if tokens is None else "tokens"
    try:
        limit = Decimal(str(usd if tokens is None else tokens))
    except InvalidOperation:
        raise BadRequest(f"{usd or tokens!r} is no number.") from None
    with _where(url, config_file) as where:
        made = where.create(limit, {**asked, "unit": unit})
    echo(shapes.encode(made) if as_json else f"{made.id}: {_about(made)} may use {_limit(made)}.")


@budgets.command("list")
@click.option("--workspace", metavar="NAME", help="Only this workspace's.")
@place
def listing(url: str | None, config_file: Path | None, as_json: bool, workspace: str | None) -> None:
    """List the budgets, and how they stand."""
    with _where(url, config_file) as where:
        found = [each for each in where.listing() if workspace in (None, each.workspace)]
    if as_json:
        echo(shapes.encode(found))
        return
    rows = [
        (each.id, _about(each), each.mode, _limit(each), *(_amount(each, of) for of in _standing(each)))
        for each in found
    ]
    console().print(table(["Id", "For", "Mode"], ["Limit", "Spent", "Charged", "Held"], rows))


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
    with _where(url, config_file) as where:
        ended = where.end(budget_id)
    echo(shapes.encode(ended) if as_json else f"{ended.id} is ended.")


class _Proxy:
    """Budgets through the running proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def create(self, limit: Decimal, asked: Choices) -> BudgetInfo:
        answer = self._proxy.request("POST", "/budgets", body={**asked, "limit": str(limit)})
        return msgspec.json.decode(answer.content, type=BudgetInfo)

    def listing(self) -> list[BudgetInfo]:
        return msgspec.json.decode(self._proxy.request("GET", "/budgets").content, type=BudgetList).data

    def end(self, budget_id: str) -> BudgetInfo:
        raw = self._proxy.request("DELETE", f"/budgets/{quote(budget_id, safe='')}").content
        return msgspec.json.decode(raw, type=BudgetInfo)


class _File:
    """Budgets in the data directory, while no proxy runs on it."""

    def __init__(self, settings: Settings) -> None:
        data_dir = Path(settings.data_dir)
        data_dir.mkdir(parents=True, exist_ok=True)
        self._ring = BudgetRing(BudgetFile(data_dir), now_us=_now_us, random=secrets.token_bytes)

    def create(self, limit: Decimal, asked: Choices) -> BudgetInfo:
        named = {name: value for name, value in asked.items() if name != "workspace"}
        amount = limit_of(limit, "tokens" if asked["unit"] == "tokens" else "usd")
        return info(self._ring.create(asked["workspace"], amount, **named), _now_us())  # type: ignore[arg-type]

    def listing(self) -> list[BudgetInfo]:
        return [info(budget, _now_us()) for budget in self._ring.listing()]

    def end(self, budget_id: str) -> BudgetInfo:
        return info(self._ring.end(budget_id), _now_us())


@contextmanager
def _where(url: str | None, config_file: Path | None) -> Iterator[_Proxy | _File]:
    settings = load(config_file)
    with acting(url, settings) as proxy:
        yield _File(settings) if proxy is None else _Proxy(proxy)


@contextmanager
def _running(url: str | None, config_file: Path | None) -> Iterator[Proxy]:
    with acting(url, load(config_file)) as proxy:
        if proxy is None:
            raise BadRequest("No proxy runs here: what calls are charged is in its history. Start it, or give --url.")
        yield proxy


def _now_us() -> int:
    return time.time_ns() // 1_000


def _about(each: BudgetInfo) -> str:
    part = f" key {each.key_id}" if each.key_id else f" task {each.task}" if each.task else ""
    return f"{each.workspace}{part}"


def _standing(each: BudgetInfo) -> tuple[Decimal | None, ...]:
    return each.spent, each.charged, each.held


def _charge(each: ChargeInfo) -> tuple[str, ...]:
    part = f" key {each.key_id}" if each.key_id else f" task {each.task}" if each.task else ""
    ended = (each.ended_at or "—")[:19].replace("T", " ")
    return each.request_id, f"{each.workspace}{part}", ended, count(each.charged_tokens), money(each.charged_usd)


def _limit(each: BudgetInfo) -> str:
    per = "" if each.period == "total" else f" a {each.period}"
    return f"{_amount(each, each.limit)}{per}"


def _amount(each: BudgetInfo, value: Decimal | None) -> str:
    if value is None:
        return "—"
    return money(value) if each.unit == "usd" else f"{count(int(value))} tokens"
