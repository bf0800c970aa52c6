"""`owed`: calls that are billed later, and what they wait for."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from taximeter.cli.options import place
from taximeter.cli.proxy import Unreachable, acting
from taximeter.cli.show import console, echo, table
from taximeter.control.answers.owed import OwedInfo, OwedList

HEADS = ("Object", "State", "Since", "Workspace", "Key", "Track", "Upstream", "Request")


@click.command()
@click.option("--workspace", metavar="NAME", help="Only this workspace's.")
@click.option("--state", multiple=True, help="outstanding (default), expired or ended; repeatable.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=1_000, help="So many, the oldest.", show_default=True)
@place
def owed(
    url: str | None,
    config_file: Path | None,
    as_json: bool,
    workspace: str | None,
    state: tuple[str, ...],
    limit: int,
) -> None:
    """List batches, background responses and jobs that are billed later: what is outstanding, since when, for whom."""
    given = {"workspace": workspace, "state": list(state), "limit": str(limit)}
    with acting(url, config_file) as (_, proxy):
        if proxy is None:
            raise Unreachable("No proxy runs here: it knows what is owed, so start it first (taximeter serve).")
        raw = proxy.request("GET", "/usage/owed", params={name: each for name, each in given.items() if each}).content
    if as_json:
        echo(raw)
        return
    rows = [_row(each) for each in msgspec.json.decode(raw, type=OwedList).data]
    if not rows:
        echo(f"Nothing is {' or '.join(state or ('outstanding',))}.")
        return
    used = [place for place, _ in enumerate(HEADS) if any(row[place] for row in rows)]  # ids are long: no empty columns
    console().print(table([HEADS[place] for place in used], [], [tuple(row[place] for place in used) for row in rows]))


def _row(each: OwedInfo) -> tuple[str, ...]:
    names = each.workspace, each.key_id or "", each.track or "", each.upstream, each.request_id
    return each.object, each.state, (each.since or "—")[:19].replace("T", " "), *names
