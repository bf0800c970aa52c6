"""`alerts list | test`: what alerts told lately, and sending one now."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import click

from taximeter.alerts.book import Book
from taximeter.alerts.responses import AlertList, listed
from taximeter.alerts.rule import Letter, Plan, Told, letters
from taximeter.cli.options import place
from taximeter.cli.proxy import acting
from taximeter.cli.show import console, echo, table
from taximeter.config import Settings, load
from taximeter.config.envfile import environment
from taximeter.control.answers import responses
from taximeter.core.errors import BadRequest


@click.group()
def alerts() -> None:
    """Alerts by e-mail and webhook."""


@alerts.command("list")
@place
def listing(url: str | None, config_file: Path | None, as_json: bool) -> None:
    """What was told lately, the newest first, and what is on its way."""
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            found = listed(Book(Path(settings.data_dir)).read())
        else:
            found = proxy.send(AlertList, "GET", "/alerts")
    if as_json:
        echo(responses.encode(found))
        return
    told = [(_when(each.told_at), each.alert, each.kind, each.title, each.state) for each in found.told]
    console().print(table(["Told at", "Alert", "Of", "What", "State"], [], told))
    for letter in found.waiting:
        whom, problem = ", ".join(letter.to) or letter.channel, letter.problem or "not tried yet"
        echo(f"On its way to {whom}, tried {letter.attempts} times: {letter.title}: {problem}")
    if found.given_up:
        echo(f"{found.given_up} were given up.")


@alerts.command()
@click.option("--alert", "name", help="Only this one of the settings; default: all.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings of the proxy.")
def test(name: str | None, config_file: Path | None) -> None:
    """Send one now, as the settings say, and say whether it was taken. Exit code 1: one was not."""
    from taximeter.cli.options import guarded

    guarded(_test)(name, config_file)


def _test(name: str | None, config_file: Path | None) -> None:
    settings = load(config_file)
    chosen = [each for each in settings.alert if name in (None, each.name)]
    if not chosen:
        named = ", ".join(each.name for each in settings.alert) or "none"
        raise BadRequest(f"No alert {name!r} is in the settings; there: {named}." if name else "No [[alert]] is set.")
    failed = False
    for alert in chosen:
        to = tuple(alert.email_to)
        plan = Plan(name=alert.name, kinds=frozenset(), email_to=to, webhook=alert.webhook, period_us=0)
        for letter in letters(plan, _made_up(alert.name), over=False, now_us=time.time_ns() // 1_000):
            whom = ", ".join(letter.to) or settings.webhook.url
            problem = _sent(settings, letter)
            failed = failed or bool(problem)
            echo(f"{alert.name}: {letter.channel} to {whom}: {problem or 'taken'}")
    if failed:
        raise SystemExit(1)


def _made_up(name: str) -> Told:
    return Told(
        alert=name,
        kind="sink",
        subject=f"test:{time.time_ns()}",
        title="This is a test",
        text="Somebody ran `taximeter alerts test`. Alerts come this way.",
        told_at=time.time_ns() // 1_000,
    )


def _sent(settings: Settings, letter: Letter) -> str:
    node = settings.node or "of the command line"
    environ = environment(settings.env_file, os.environ)
    if letter.channel == "email":
        from taximeter.alerts.mail import Mailer, password

        return Mailer(settings.smtp, password(settings.smtp, environ), node).send(letter)[1]
    from taximeter.alerts.post import Poster

    async def post() -> str:
        poster = Poster.of(settings.webhook, environ, node, lambda: time.time_ns() // 1_000)
        if poster is None:
            return "no webhook that takes events is configured"
        try:
            return await poster(letter)
        finally:
            await poster.close()

    return asyncio.run(post())


def _when(moment: str | None) -> str:
    return (moment or "")[:19].replace("T", " ")
