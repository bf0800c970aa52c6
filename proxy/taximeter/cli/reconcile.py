"""`reconcile`: our figures against a provider's own, as they are compared daily, or against its export in a file."""

from __future__ import annotations

import sys
from collections.abc import Container
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
import msgspec

from taximeter.cli.backend import Backend
from taximeter.cli.known import Unknown
from taximeter.cli.options import FAILED, asks_proxy, in_range, needs_proxy
from taximeter.cli.proxy import Proxy, Refused
from taximeter.cli.reconcile_file import compared, show_file
from taximeter.cli.show import console, count, echo, table
from taximeter.control.answers import responses
from taximeter.core.errors import BadRequest
from taximeter.core.figures import money
from taximeter.reconcile.responses import ReconcileDetail, ReconciledRow, ReconcileInfo, ReconcileList

if TYPE_CHECKING:
    from rich.console import Console

NOW_S = 600.0
"""How long a comparison is waited for."""
Params = dict[str, list[str]]
NAMES = ("input_tokens", "cached_input_tokens", "cache_write_input_tokens", "output_tokens", "cost_usd")


class Percent(click.ParamType[float]):
    """`0.5%` or `0.5`, as a part of 1."""

    name = "PERCENT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            part = float(str(value).removesuffix("%")) / 100
        except ValueError:
            part = -1.0
        if not 0 <= part <= 1:
            self.fail(f"{value!r} is no percentage from 0 to 100, such as 0.5%.", param, ctx)
        return part


@click.command()
@click.argument("target", required=False, metavar="[NAME|FILE]")
@click.option("--fail-over", type=Percent(), help="End with 1 where figures are further apart; default: its tolerance.")
@click.option("--now", is_flag=True, help="Ask the provider first, also before its time.")
@click.option("--provider", default="openai", show_default=True, metavar="NAME", help="FILE: whose export it is.")
@click.option("--workspace", multiple=True, metavar="NAME", help="FILE: compare with these workspaces only.")
@click.option(
    "--operation",
    "operations",
    multiple=True,
    type=click.Choice(["llm", "embedding", "rerank"]),
    help="FILE: compare with these only; default: what the export says it is about.",
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@asks_proxy
@in_range
def reconcile(
    backend: Backend,
    target: str | None,
    fail_over: float | None,
    now: bool,
    provider: str,
    workspace: tuple[str, ...],
    operations: tuple[str, ...],
    as_json: bool,
    params: Params,
) -> None:
    """Our figures against a provider's own, by day and model: what differs, and what never passed here.

    NAME is a [[reconcile]] of the settings (none: all of them), which the running proxy compares daily. FILE is a
    provider's usage export (OpenAI's usage API as JSON, or CSV; - reads standard input).

    Exit codes: 0 they agree, 1 they differ or the provider could not be asked since, 2 wrong usage or a file that
    cannot be read, 3 no proxy runs, 4 there is no such NAME, or it was never compared.
    """
    if target is not None and (target == "-" or Path(target).is_file()):
        if params or now:
            raise BadRequest("A file says itself which days it is about; --from, --to and --now are for a NAME.")
        _file(backend, target, fail_over, provider, workspace, operations, as_json)
        return
    proxy = needs_proxy(backend, "reconcile")
    params.pop("tz", None)  # what it moved are the ends; days are those of UTC
    names, failing = ([target], False) if target is not None else _names(proxy, now=now)
    found = [_one(proxy, name, params, now=now) for name in names]
    if as_json:
        echo(responses.encode(found if target is None else found[0]))
    else:
        for number, each in enumerate(found):
            if number:
                echo("")
            _show(each)
    failing = failing or any(each.problem for each in found if now or not params)
    if failing or any(_differs(each, fail_over) for each in found):
        sys.exit(FAILED)


def _file(
    backend: Backend,
    target: str,
    fail_over: float | None,
    provider: str,
    workspace: tuple[str, ...],
    operations: tuple[str, ...],
    as_json: bool,
) -> None:
    content = sys.stdin.buffer.read() if target == "-" else Path(target).read_bytes()
    found, complete = compared(backend, content, provider, workspace, operations)
    if as_json:
        echo(responses.encode(found))
    else:
        show_file(found)
    if not complete:
        echo("Some calls are still on their way into history.", err=True)
    if found.differing if fail_over is None else found.difference_ratio > fail_over:
        sys.exit(FAILED)


def _names(proxy: Proxy, *, now: bool) -> tuple[list[str], bool]:
    """All that were compared, or are to be; of the others it is said why not, and whether one of them failed."""
    configured = proxy.send(ReconcileList, "GET", "/reconciliations").data
    if not configured:
        raise BadRequest("No [[reconcile]] is configured, and no file is named.")
    for each in configured:
        if each.compared_at is None and not now:
            echo(f"{each.name}: not compared yet{f': {each.problem}' if each.problem else ''}", err=True)
    names = [each.name for each in configured if now or each.compared_at is not None]
    if not names:
        raise Unknown("Nothing was compared yet.")
    return names, any(each.problem for each in configured if each.name not in names)


def _one(proxy: Proxy, name: str, params: Params, *, now: bool) -> ReconcileDetail:
    path = f"/reconciliations/{quote(name, safe='')}"
    try:
        if now:
            info = msgspec.json.decode(proxy.request("POST", path, wait_s=NOW_S).content, type=ReconcileInfo)
            if info.problem is not None:
                echo(f"{name}: {info.problem}", err=True)
        return msgspec.json.decode(proxy.request("GET", path, params=params).content, type=ReconcileDetail)
    except Refused as error:
        raise Unknown(str(error)) if error.status == HTTPStatus.NOT_FOUND else error from error


def _differs(found: ReconcileInfo, fail_over: float | None) -> bool:
    return found.difference_ratio is not None and found.difference_ratio > (
        found.tolerance_ratio if fail_over is None else fail_over
    )


def _show(found: ReconcileDetail) -> None:
    out = console()
    at = (found.compared_at or "")[:19].replace("T", " ")
    state = "nothing to compare" if found.state == "nothing" else found.state
    out.print(f"{found.name} ({found.kind}): {state}, {found.from_} until before {found.to}; compared {at}")
    if found.problem:
        out.print(f"Not compared since: {found.problem}")
    if found.figures:
        _figures(out, found)
    if found.unknown_requests:
        out.print(f"Calls of ours of which nothing is known, in no figure: {count(found.unknown_requests)}")
    if found.unpriced_requests:
        out.print(f"Calls of ours without a price, not in our cost: {count(found.unpriced_requests)}")


def _figures(out: Console, found: ReconcileDetail) -> None:
    out.print()
    rows = [
        (each.figure, *(_amount(each.figure, value) for value in (each.ours, each.theirs, each.difference)),
         percent(each.difference_ratio), percent(each.coverage_ratio))
        for each in found.figures
    ]  # fmt: skip
    out.print(table(["In all"], ["Ours", "Provider's", "Difference", "Apart", "Passed here"], rows))
    apart = [f"{each.figure} {_amount(each.figure, each.not_known)}" for each in found.figures if each.not_known]
    if apart:
        out.print(f"Provider's, where nothing is known here, in no sum: {', '.join(apart)}")
    parts = _models(found.rows, {each.figure for each in found.figures})
    if parts:
        out.print()
        keyed = any(key for _, key, *_ in parts)
        heads = ["Model", "Key", "Figure"] if keyed else ["Model", "Figure"]
        shown = [each if keyed else (each[0], *each[2:]) for each in parts]
        out.print(table(heads, ["Ours", "Provider's", "Difference"], shown))


def percent(part: float | None) -> str:
    """Two decimals; what is less than they show is said to be."""
    if part is None:
        return "—"
    if 0 < part < 0.0001:
        return "<0.01 %"
    return ">99.99 %" if 0.9999 < part < 1 else f"{part * 100:.2f} %"


def _amount(figure: str, value: Any) -> str:
    return money(value) if figure == "cost_usd" else count(int(value))


def _models(rows: list[ReconciledRow], told: Container[str]) -> list[tuple[str, ...]]:
    """Model, key and figure where the sides differ over all days of which something is known here, as they are summed
    in all; "—": not known of any. `told`: the figures that are compared."""
    found: list[tuple[str, ...]] = []
    unnamed = "(none)" if any(row.model for row in rows) else "all"
    for model, key in dict.fromkeys((row.model, row.key) for row in rows):
        mine = [row for row in rows if (row.model, row.key) == (model, key)]
        for name in NAMES:
            known = [row for row in mine if row.ours is None or getattr(row.ours, name) is not None]
            unknown = not known
            ours = _sum(getattr(row.ours, name) for row in known if row.ours is not None)
            theirs = _sum(getattr(row.theirs, name) for row in known or mine if row.theirs is not None)
            if (ours or 0) != (theirs or 0) and name in told:
                difference = "—" if unknown else _amount(name, (ours or 0) - (theirs or 0))
                shown = "—" if unknown else _amount(name, ours or 0)
                found.append((model or unnamed, key or "", name, shown, _amount(name, theirs or 0), difference))
    return found


def _sum(values: Any) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
