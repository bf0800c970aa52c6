"""`quantities`: images, seconds, characters, pages, searches: what calls used beside input and output tokens."""

from __future__ import annotations

import click
import msgspec

from taximeter.cli.backend import Backend
from taximeter.cli.options import asks_usage
from taximeter.cli.show import console, count, echo, table
from taximeter.control.answers import responses
from taximeter.control.answers.quantities import QuantitiesResponse
from taximeter.sinks.query import SERIES


@click.command()
@click.option("--by", type=click.Choice(SERIES), default="model", show_default=True, help="By what it is added up.")
@asks_usage
def quantities(backend: Backend, params: dict[str, list[str]], as_json: bool, by: str) -> None:
    """Images, characters, pages, seconds, uses of tools and rarer tokens, of whole hours (UTC)."""
    answer = msgspec.json.decode(backend.insight("quantities", {**params, "group_by": [by]}), type=QuantitiesResponse)
    if as_json:
        echo(responses.encode(answer))
        return
    rows = [
        (str(getattr(each, by) or "(none)"), each.kind, each.variant or "", count(each.amount), each.unit)
        for each in answer.quantities
    ]
    out = console()
    if not rows:
        out.print("Nothing of this kind was used in this range.")
    else:
        out.print(table([by.capitalize().replace("_", " "), "What", "Size, quality"], ["Amount", "Unit"], rows))
    if not answer.complete:
        out.print("Some calls are still on their way into history.", style="dim")
