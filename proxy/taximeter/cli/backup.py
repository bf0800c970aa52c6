"""`backup`, `restore`: a copy of the data directory while it is used, and putting it back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from taximeter.cli.options import guarded
from taximeter.cli.show import count, echo

if TYPE_CHECKING:
    from taximeter.config import Settings

_config = click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings of the node.")


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@_config
@guarded
def backup(directory: Path, config_file: Path | None) -> None:
    """Copy what cannot be made anew into DIRECTORY: SQLite history, journals, keys, budgets, audit log.

    The proxy may run meanwhile. A PostgreSQL history is not in it: pg_dump; nor is Redis: it is rebuilt from history.
    """
    from taximeter.config import load
    from taximeter.node import backup as copying
    from taximeter.node.audit import command_log

    settings = load(config_file)
    history = history_file(settings)
    if history is not None and not history.is_file():
        history = None
    with command_log(settings).act("node.backup", str(directory)) as change:
        made = copying.backup(Path(settings.data_dir), directory, history=history)
        change.after = {"files": len(made.files)}
    size = sum(each.bytes for each in made.files.values())
    echo(f"{count(len(made.files))} files, {count(size)} bytes in {directory}.")
    if settings.history.url.startswith("postgres"):
        echo("The history is a PostgreSQL: back it up with pg_dump, after this.")


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--check", is_flag=True, help="Only look whether it is whole.")
@_config
@guarded
def restore(directory: Path, check: bool, config_file: Path | None) -> None:
    """Put a back-up into this node's data directory, which has to be empty, and not in use.

    At the next start what the journals in it have and the history does not is delivered, and Redis is rebuilt.
    """
    from taximeter.config import load
    from taximeter.core.times import shown
    from taximeter.node import backup as copying
    from taximeter.node.audit import command_log
    from taximeter.node.datadir import DataDir

    if check:
        made = copying.check(directory)
        echo(f"Whole: {count(len(made.files))} files of node {made.node}, made {shown(made.at)}.")
        return
    settings = load(config_file)
    held = DataDir(Path(settings.data_dir))
    try:
        made = copying.restore(directory, held.path, history=history_file(settings))
    finally:
        held.release()
    command_log(settings).note("node.restore", str(directory), after={"made_at": shown(made.at)})
    echo(f"{count(len(made.files))} files of node {made.node}, made {shown(made.at)}, are in {settings.data_dir}.")


def history_file(settings: Settings) -> Path | None:
    """The SQLite file of the history; None where it is a PostgreSQL."""
    from taximeter.sinks.history.database import Database
    from taximeter.sinks.history.sink import default_url

    with Database(settings.history.url or default_url(settings.data_dir)) as database:
        return database.path
