"""`statement`: drawn up, closed, listed, shown again; by the running proxy, or read from its history."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
import msgspec

from taximeter.cli.known import Unknown
from taximeter.cli.options import place
from taximeter.cli.proxy import Proxy, Refused, Unreachable, acting
from taximeter.cli.show import console, count, echo, table
from taximeter.config import Settings
from taximeter.core.errors import BadRequest, NotFound, TaximeterError

if TYPE_CHECKING:
    from taximeter.billing.books import Books
    from taximeter.billing.statement import MarginList, Standing, Statement

FORMATS = ("table", "json", "csv", "html", "pdf")
CLOSE_S = 120.0
"""Closing waits for what has ended to be in history, and reckons every closed period again."""

_OUTPUT = (
    click.option("--format", "kind", type=click.Choice(FORMATS), help="Default: by --output's name, else a table."),
    click.option("--output", "-o", metavar="FILE", help="FILE.json, FILE.csv, FILE.html, FILE.pdf, or - ."),
    click.option(
        "--for",
        "reader",
        type=click.Choice(["operator", "customer"]),
        default="operator",
        show_default=True,
        help="customer: without cost and margin.",
    ),
)


def _outputs(command: Any) -> Any:
    for option in reversed(_OUTPUT):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.option("--workspace", metavar="NAME", help="Whose.")
@click.option("--month", metavar="YYYY-MM", help="The period, or --from and --to.")
@click.option("--from", "from_", metavar="TIME", help="First moment: a date or RFC 3339.")
@click.option("--to", metavar="TIME", help="First moment no longer included.")
@click.option("--tz", metavar="ZONE", help="Time zone of months and dates; default: billing.tz.")
@click.option("--by", metavar="NAMES", help="What lines are grouped by, with commas; default: model,task.")
@click.option("--currency", metavar="CODE", help="Default: billing.currency.")
@click.option(
    "--chunks", type=click.IntRange(0), default=0, metavar="COUNT", help="Chunks indexed, for rag_indexation."
)
@click.option("--close", "closes", is_flag=True, help="Number it and keep it; it never changes again.")
@click.option("--force", is_flag=True, help="With --close: although calls are not in history yet.")
@_outputs
@place
def statement(url: str | None, config_file: Path | None, as_json: bool, **given: Any) -> None:
    """What a workspace used in a period, what it cost, and what it is charged.

    `taximeter statement list` and `show` tell of those that are closed.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    if given["workspace"] is None:
        raise BadRequest("Name the workspace: --workspace.")
    shown = _shown_as(as_json, given)
    asked = {name: given[name] for name in ("workspace", "month", "to", "tz", "currency", "chunks")}
    asked |= {"from": given["from_"], "by": [name.strip() for name in (given["by"] or "").split(",") if name.strip()]}
    with _acting(url, config_file) as (settings, proxy):
        if given["closes"]:
            if proxy is None:
                raise Unreachable("Closing needs the running proxy: it brings what has ended into history first.")
            made = _closed(proxy, asked | {"force": given["force"]})
        else:
            made = _drawn_up(proxy, settings, asked)
    _put(made, *shown)


@statement.command("list")
@click.option("--workspace", metavar="NAME", help="Only this one's.")
@place
def list_(url: str | None, config_file: Path | None, as_json: bool, workspace: str | None) -> None:
    """Closed statements, and what is on none yet."""
    from taximeter.billing.statement import StandingList
    from taximeter.control.answers import responses

    with _acting(url, config_file) as (settings, proxy):
        if proxy is not None:
            params = {"workspace": [workspace]} if workspace else {}
            raw = proxy.request("GET", "/billing/statements", params=params).content
            found = msgspec.json.decode(raw, type=StandingList)
        else:
            with _books(settings) as books:
                names = [workspace] if workspace else books.workspaces()
                found = StandingList(data=[books.standing(name) for name in names])
    if as_json:
        echo(responses.encode(found))
    else:
        _list(found.data)


@statement.command()
@click.option("--month", metavar="YYYY-MM", help="The period, or --from and --to.")
@click.option("--from", "from_", metavar="TIME", help="First moment: a date or RFC 3339.")
@click.option("--to", metavar="TIME", help="First moment no longer included.")
@click.option("--tz", metavar="ZONE", help="Time zone of months and dates; default: billing.tz.")
@place
def margins(url: str | None, config_file: Path | None, as_json: bool, **given: str | None) -> None:
    """Cost, charge and margin of each workspace in a period."""
    from taximeter.billing.asking import tariff
    from taximeter.billing.period import period
    from taximeter.billing.statement import MarginList
    from taximeter.control.answers import responses

    with _acting(url, config_file) as (settings, proxy):
        if proxy is not None:
            params = {name.rstrip("_"): [value] for name, value in given.items() if value}
            raw = proxy.request("GET", "/billing/margins", params=params).content
            found = msgspec.json.decode(raw, type=MarginList)
        else:
            asked = period(given["month"], given["from_"], given["to"], given["tz"] or settings.billing.tz)
            with _books(settings) as books:
                found = books.margins(asked, tariff(settings))
    if as_json:
        echo(responses.encode(found))
    else:
        _margins(found)


@statement.command()
@click.argument("number", type=click.IntRange(1))
@click.option("--workspace", required=True, metavar="NAME", help="Whose.")
@_outputs
@place
def show(url: str | None, config_file: Path | None, as_json: bool, workspace: str, number: int, **given: Any) -> None:
    """A closed statement, as it was closed."""
    from taximeter.billing.statement import Statement

    shown = _shown_as(as_json, given)
    with _acting(url, config_file) as (settings, proxy):
        if proxy is not None:
            made = proxy.send(Statement, "GET", f"/billing/statements/{quote(workspace, safe='')}/{number}")
        else:
            with _books(settings) as books:
                made = books.show(workspace, number)
    _put(made, *shown)


def _closed(proxy: Proxy, asked: dict[str, Any]) -> Statement:
    from taximeter.billing.statement import Statement

    raw = proxy.request("POST", "/billing/statements", body=asked, wait_s=CLOSE_S).content
    return msgspec.json.decode(raw, type=Statement)


def _drawn_up(proxy: Proxy | None, settings: Settings, asked: dict[str, Any]) -> Statement:
    from taximeter.billing.asking import Closing, question, tariff
    from taximeter.billing.statement import Statement

    if proxy is None:
        with _books(settings) as books:
            return books.preview(question(msgspec.convert(asked, Closing), settings), tariff(settings))
    params = {name: value if name == "by" else [str(value)] for name, value in asked.items() if value}
    raw = proxy.request("GET", "/billing/statement", params=params, wait_s=CLOSE_S).content
    return msgspec.json.decode(raw, type=Statement)


@contextmanager
def _acting(url: str | None, config_file: Path | None) -> Iterator[tuple[Settings, Proxy | None]]:
    """As `acting`. Raises Unknown where there is no such workspace or number, whoever was asked."""
    try:
        with acting(url, config_file) as found:
            yield found
    except NotFound as error:
        raise Unknown(str(error)) from error
    except Refused as error:
        raise Unknown(str(error)) if error.status == HTTPStatus.NOT_FOUND else error from error


@contextmanager
def _books(settings: Settings) -> Iterator[Books]:
    """Those in the history of these settings. Raises Unreachable, ConfigError."""
    from taximeter.billing.books import Books
    from taximeter.sinks.history.read.reader import Reader
    from taximeter.sinks.history.sink import default_url

    echo("No proxy runs here: read from its history; calls still in the journal are missing.", err=True)
    with closing(Reader.open(settings.history.url or default_url(settings.data_dir))) as reader:
        yield Books(reader)


def _shown_as(as_json: bool, given: dict[str, Any]) -> tuple[str, str | None, str]:
    """(format, file, reader). Raises BadRequest on a file whose name says no format."""
    kind, output = given["kind"], given["output"]
    if kind is None and output is not None and output != "-":
        kind = Path(output).suffix.removeprefix(".").lower()
        if kind not in FORMATS[1:]:
            raise BadRequest(f"--output {output!r}: its name must end in .json, .csv, .html or .pdf, or say --format.")
    kind = kind or ("json" if as_json else "table")
    if kind == "pdf" and output is None:
        raise BadRequest("A PDF goes to a file: --output FILE.pdf, or - .")
    return kind, output, given["reader"]


def _put(made: Statement, kind: str, output: str | None, reader: str) -> None:
    from taximeter.billing.formats import written
    from taximeter.billing.statement import for_customer
    from taximeter.control.answers import responses

    shown = for_customer(made) if reader == "customer" else made
    if kind == "table":
        _table(shown)
    elif kind == "json" and output is None:
        echo(responses.encode(shown))
    else:
        content = written(shown, kind)  # type: ignore[arg-type]  # click knows the choices
        if output in (None, "-"):
            sys.stdout.buffer.write(content)
            return
        try:
            Path(str(output)).write_bytes(content)
        except OSError as error:
            raise TaximeterError(f"{output} cannot be written: {error.strerror}.") from error
        number = f"Statement {made.number}" if made.number is not None else "A draft"
        echo(f"{number} of {made.workspace} is in {output}.", err=True)


def _table(made: Statement) -> None:
    from taximeter.billing.shown import printed

    page = printed(made)
    echo(page.title)
    echo(page.period)
    if page.plans:
        echo(f"Plan: {page.plans}")
    figures = ["Requests", *([f"Cost ({page.currency})"] if page.own else []), f"Charge ({page.currency})"]
    rows = []
    for line, row in zip(made.lines, page.rows, strict=True):
        used = "; ".join(part for part in (row.used, row.prices, row.remarks) if part)
        rows.append((row.about, used, count(line.quantities.requests), *([row.cost] if page.own else []), row.charge))
    requests = count(made.total.quantities.requests)
    rows.append(("Total", "", requests, *([page.cost] if page.own else []), page.charge))
    if page.own:
        rows.append(("Margin", "", "", "", page.margin))
    console().print(table([page.by, "Used"], figures, rows))
    for words in page.words:
        echo(words)


def _margins(found: MarginList) -> None:
    from taximeter.billing.shown import EXACT, amount

    rows = [
        (each.workspace, count(each.requests), count(each.unknown_requests + each.unpriced_requests),
         *(amount(value, EXACT) for value in (each.cost_usd, each.charge_usd, each.margin_usd)))
        for each in found.data
    ]  # fmt: skip
    figures = ["Requests", "Of unknown cost", "Cost (USD)", "Charge (USD)", "Margin (USD)"]
    console().print(table(["Workspace"], figures, rows))


def _list(found: list[Standing]) -> None:
    from taximeter.billing import shown

    if not found:
        echo("No statement is closed yet.")
    for each in found:
        rows = [
            (str(one.number), one.from_, one.to, one.closed_by, shown.amount(one.cost_usd, shown.EXACT),
             shown.amount(one.charge_usd, shown.EXACT), shown.amount(one.margin_usd, shown.EXACT))
            for one in each.statements
        ]  # fmt: skip
        echo(each.workspace)
        if not rows:
            echo("No statement is closed yet.")
        else:
            heads = ["No.", "From", "To", "Closed by"]
            console().print(table(heads, ["Cost (USD)", "Charge (USD)", "Margin (USD)"], rows))
        echo(
            f"Ledger {shown.amount(each.ledger_usd, shown.EXACT)} USD = {shown.amount(each.stated_usd, shown.EXACT)} "
            f"stated + {shown.amount(each.open_usd, shown.EXACT)} open ({count(each.open_requests)} requests)."
        )
