"""`deadletters list | replay`: records that a sink could not take, and having them taken again."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from taximeter.cli.options import place
from taximeter.cli.proxy import Unreachable, acting
from taximeter.cli.show import console, echo, table
from taximeter.control.answers.deadletters import DeadLetter, DeadLetterList, info
from taximeter.core.errors import BadRequest
from taximeter.delivery.aside import Aside
from taximeter.delivery.health import Replayed


@click.group()
def deadletters() -> None:
    """Records that a sink (history, redis, webhook) could not take: they are kept, and missing in its figures."""


@deadletters.command("list")
@click.option("--sink", help="Only this sink's.")
@place
def listing(url: str | None, config_file: Path | None, as_json: bool, sink: str | None) -> None:
    """List them, oldest first, with what the sink failed with."""
    found = _listed(url, config_file, sink)
    if as_json:
        echo(msgspec.json.encode(found))
        return
    rows = [(each.key, each.workspace, each.request_id, each.set_aside_at or "", each.problem) for each in found]
    console().print(table(["Key", "Workspace", "Request", "Set aside at", "Problem"], [], rows))


@deadletters.command()
@click.argument("keys", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every one there is.")
@place
def replay(url: str | None, config_file: Path | None, as_json: bool, keys: tuple[str, ...], everything: bool) -> None:
    """Offer records to their sinks again; each counts once, however often it is offered."""
    if bool(keys) == everything:
        raise BadRequest("Name the keys (taximeter deadletters list), or say --all.")
    with acting(url, config_file) as (_, proxy):
        if proxy is None:
            raise Unreachable("No proxy runs here: its sinks take the records, so start it first (taximeter serve).")
        answer = proxy.request("POST", "/deadletters/replay", body={"keys": None if everything else keys})
    told = msgspec.json.decode(answer.content, type=Replayed)
    if as_json:
        echo(answer.content)
    else:
        echo(f"{told.replayed} taken.")
        for key, problem in told.failed.items():
            echo(f"{key} stays: {problem}")
    if told.failed:
        raise SystemExit(1)


def _listed(url: str | None, config_file: Path | None, sink: str | None) -> list[DeadLetter]:
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            return [info(letter) for letter in Aside(Path(settings.data_dir) / "journal").letters(sink)]
        params = {} if sink is None else {"sink": [sink]}
        answer = proxy.request("GET", "/deadletters", params=params)
        return msgspec.json.decode(answer.content, type=DeadLetterList).data
