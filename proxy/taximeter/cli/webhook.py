"""`webhook list | resend`: letters to the billing backend that it has not accepted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from taximeter.cli.options import place
from taximeter.cli.proxy import acting
from taximeter.cli.show import console, echo, table
from taximeter.config import Settings
from taximeter.control.answers.letters import LetterList, info
from taximeter.core.errors import BadRequest
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.sink import default_url
from taximeter.sinks.webhook.store import Store


@click.group()
def webhook() -> None:
    """Letters to the billing backend: what it has not accepted yet, and what was given up."""


@webhook.command("list")
@click.option("--dead", is_flag=True, help="Only those given up.")
@place
def listing(url: str | None, config_file: Path | None, as_json: bool, dead: bool) -> None:
    """List the letters not accepted yet, oldest first."""
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            with _store(settings) as store:
                found = [info(letter) for letter in store.letters(dead=True if dead else None)]
        else:
            found = proxy.send(LetterList, "GET", "/webhook?dead=true" if dead else "/webhook").data
    if as_json:
        echo(msgspec.json.encode(found))
        return
    rows = [
        (each.key, each.state, str(each.attempts), each.created_at or "", each.next_at or "—", each.problem or "—")
        for each in found
    ]
    console().print(table(["Key", "State", "Attempts", "Made at", "Next attempt", "Problem"], [], rows))


@webhook.command()
@click.argument("keys", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
@place
def resend(url: str | None, config_file: Path | None, as_json: bool, keys: tuple[str, ...], everything: bool) -> None:
    """Send dead letters again, under the keys they always had."""
    if bool(keys) == everything:
        raise BadRequest("Name the keys of dead letters (taximeter webhook list --dead), or say --all.")
    named = None if everything else keys
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            with _store(settings) as store:
                resent = store.resend(named)
        else:
            resent = proxy.send(dict[str, int], "POST", "/webhook/resend", {"keys": named})["resent"]
    echo(msgspec.json.encode({"resent": resent}) if as_json else f"{resent} sent again.")


@contextmanager
def _store(settings: Settings) -> Iterator[Store]:
    """The outbox in the history database, while no proxy runs; the next start sends what is resent here."""
    with Database(settings.history.url or default_url(settings.data_dir)) as database:
        store = Store(database, settings.node, events=False, now_us=lambda: time.time_ns() // 1_000)
        store.prepare()
        yield store
