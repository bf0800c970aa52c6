"""`database size | prune | compact | move`: the history's file or database, looked after by hand."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from taximeter.cli.options import guarded
from taximeter.cli.show import console, count, echo
from taximeter.cli.times import SPANS, span_s

if TYPE_CHECKING:
    from taximeter.config import Settings
    from taximeter.sinks.history.database import Database

_config = click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings of the node.")
_json = click.option("--json", "as_json", is_flag=True, help="For machines.")


@click.group()
def database() -> None:
    """The history: how large it is, deleting old records, giving room back, moving it."""


@database.command()
@_config
@_json
@guarded
def size(config_file: Path | None, as_json: bool) -> None:
    """How many single records there are, since when, and how much room they take."""
    import msgspec

    from taximeter.core.times import shown
    from taximeter.sinks.history.space import size as measure

    with _opened(_load(config_file)) as opened:
        found = measure(opened)
        name = opened.name
    if as_json:
        echo(msgspec.json.encode(found))
        return
    echo(f"{name}: {count(found.bytes)} bytes, {count(found.records)} records since {shown(found.oldest_us) or '—'}")
    if found.free_bytes is not None:
        echo(f"{count(found.free_bytes)} bytes of it are free for later records")
    if not found.gives_back:
        echo("What deleted records took stays with the file: `taximeter database compact` changes that, once.")


@database.command()
@click.option("--keep", metavar="SPAN", help=f"Delete single records older than this ({SPANS}); default: the setting.")
@_config
@guarded
def prune(keep: str | None, config_file: Path | None) -> None:
    """Delete old single records now; sums stay. A running proxy does it each hour, as history.retention_days says."""
    from taximeter.node.audit import command_log

    settings = _load(config_file)
    kept_s = span_s(keep, "keep") if keep else settings.history.retention_days * 86_400
    before_us = time.time_ns() // 1_000 - kept_s * 1_000_000
    with command_log(settings).act("history.prune", f"older than {kept_s // 86_400} days") as change:
        gone, before, after = asyncio.run(_prune(settings, before_us))
        change.before, change.after = {"bytes": before}, {"bytes": after, "deleted": gone}
    echo(f"{count(gone)} records, partitions or sums by tag deleted; {count(before)} bytes before, {count(after)} now.")


async def _prune(settings: Settings, before_us: int) -> tuple[int, int, int]:
    from taximeter.sinks.history.sink import History
    from taximeter.sinks.history.space import size as measure

    history = History(_url(settings))
    try:
        before = (await history.write(measure)).bytes
        return await history.prune(before_us), before, (await history.write(measure)).bytes
    finally:
        await history.close()


@database.command()
@_config
@guarded
def compact(config_file: Path | None) -> None:
    """Write a SQLite file anew without what deleted records took; from then on it gives that back by itself.

    Takes as much room again meanwhile. A proxy may run: its calls go on, and are delivered afterwards.
    """
    from taximeter.sinks.history.space import compact as write_anew
    from taximeter.sinks.history.space import size as measure

    settings = _load(config_file)
    with _opened(settings) as opened:
        if opened.path is None:
            echo("PostgreSQL gives the room of old months back as soon as they are deleted; there is nothing to do.")
            return
        before = measure(opened).bytes
        write_anew(opened)
        echo(f"{opened.path}: {count(before)} bytes before, {count(measure(opened).bytes)} now.")


@database.command()
@click.option("--to", "target", required=True, metavar="URL", help="postgresql://user@host/name, or sqlite:///path.")
@_config
@guarded
def move(target: str, config_file: Path | None) -> None:
    """Copy the history into another, empty database; then set history.url to it. The proxy must not run.

    The one it has is left as it is.
    """
    from taximeter.cli.moving import move as copy
    from taximeter.node.audit import command_log
    from taximeter.node.datadir import DataDir
    from taximeter.sinks.history.database import Database

    settings = _load(config_file)
    held = DataDir(Path(settings.data_dir))
    try:
        with (
            Database(_url(settings), read_only=True) as source,
            Database(target) as opened,
            command_log(settings).act("history.move", opened.name) as change,
            console(stderr=True).status("Copying") as shown,
        ):
            rows = copy(source, opened, lambda table, so_far: shown.update(f"{table}: {count(so_far)} rows"))
            change.before, change.after = {"history": source.name}, {"history": opened.name, "rows": rows}
    finally:
        held.release()
    echo(f"{count(rows)} rows are in {opened.name}, and its sums are the same. Set history.url to it, then start.")


def _load(config_file: Path | None) -> Settings:
    from taximeter.config import load

    return load(config_file)


def _url(settings: Settings) -> str:
    from taximeter.sinks.history.sink import default_url

    return settings.history.url or default_url(settings.data_dir)


def _opened(settings: Settings) -> Database:
    """The history as it is: none is made. Raises ConfigError where there is none."""
    from taximeter.sinks.history.database import Database

    with Database(_url(settings), read_only=True) as looked_at:
        looked_at.prepare()
    return Database(_url(settings))
