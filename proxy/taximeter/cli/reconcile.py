"""`reconcile`: our usage against a provider's own export, by day and model."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from taximeter.cli.backend import Backend
from taximeter.cli.options import FAILED, asks_proxy
from taximeter.cli.show import console, count, echo, table
from taximeter.control.answers import reconcile as comparison
from taximeter.control.answers import responses
from taximeter.control.answers.reconcile import Reconciliation
from taximeter.control.answers.responses import UsageAggregateResponse
from taximeter.core.times import shown


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--provider", default="openai", show_default=True, metavar="NAME", help="Whose export it is.")
@click.option("--workspace", multiple=True, metavar="NAME", help="Compare with these workspaces only (one project).")
@click.option(
    "--operation",
    "operations",
    multiple=True,
    type=click.Choice(["llm", "embedding", "rerank"]),
    help="Compare with these only; default: what the export says it is about.",
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@asks_proxy
def reconcile(
    backend: Backend,
    file: Path,
    provider: str,
    workspace: tuple[str, ...],
    operations: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare our tokens with a provider's usage export (OpenAI's usage API as JSON, or CSV; - reads standard input).

    Exit codes: 0 they agree, 1 they differ, 2 the file cannot be read.
    """
    export = comparison.read(sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes())
    models = comparison.by_model(export)
    params = {
        "from": [shown(export.start_s * 1_000_000) or ""],
        "to": [shown(export.end_s * 1_000_000) or ""],
        "provider": [provider],
        "window": ["day"],
        **({"group_by": ["model"]} if models else {}),
        **({"operation": sorted(operations or export.operations)} if operations or export.operations else {}),
        **({"workspace": list(workspace)} if workspace else {}),
    }
    answer = msgspec.json.decode(backend.usage(params), type=UsageAggregateResponse)
    found = comparison.compare(export, _used(comparison.ours(answer, models=models)))
    if as_json:
        echo(responses.encode(found))
    else:
        _show(found)
    if not answer.complete:
        echo("Some calls are still on their way into history.", err=True)
    if found.differing:
        sys.exit(FAILED)


def _used(mine: dict[comparison.DayModel, comparison.Figures]) -> dict[comparison.DayModel, comparison.Figures]:
    """Without the days and models of calls that used nothing: no export lists them."""
    return {key: each for key, each in mine.items() if any(getattr(each, name) for name in comparison.FIGURES)}


def _show(found: Reconciliation) -> None:
    out = console()
    out.print(f"From {found.from_} until before {found.to}")
    rows = [
        (each.day, each.model or "all", each.figure, count(each.ours), count(each.theirs), f"{each.difference:+,}")
        for each in found.differences
    ]
    if rows:
        out.print()
        out.print(table(["Day", "Model", "Figure"], ["Ours", "Provider's", "Difference"], rows))
        out.print()
    sums = [
        (name, count(getattr(found.ours, name)), count(getattr(found.theirs, name)))
        for name in (*comparison.FIGURES, "requests")
        if getattr(found.theirs, name) is not None
    ]
    out.print(table(["In all"], ["Ours", "Provider's"], sums))
    agreeing = found.compared - found.differing
    out.print(f"{agreeing} of {found.compared} days and models agree")
