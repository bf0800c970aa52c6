"""`adopt`: takes over the journals of a node that is gone for good."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import click

from taximeter.cli.options import guarded
from taximeter.cli.show import echo
from taximeter.config import load
from taximeter.core.errors import ConfigError
from taximeter.node.audit import Change, command_log

Acting = AbstractContextManager[Change]


@click.command()
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--lost", metavar="NODE", help="A node whose data directory is lost: what it had begun to settle.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings of the node that takes over.")
@guarded
def adopt(directory: Path | None, lost: str | None, config_file: Path | None) -> None:
    """Move the journals of DIRECTORY, the data directory of a node that is gone, into this node's.

    Its records then reach every sink exactly once, its open calls are settled as interrupted, and what it had read of
    calls that are billed later is settled here. This node may run, or be started later. May be repeated after it was
    cut short.
    """
    if (directory is None) == (lost is None):
        raise click.UsageError("Name the node's data directory, or with --lost the node whose directory is lost.")
    settings = load(config_file)
    data_dir = Path(settings.data_dir)
    if directory is not None:
        _move(directory, data_dir, command_log(settings).act("journal.adopt", str(directory)))
    elif lost is not None:
        _declare(lost, data_dir, command_log(settings).act("journal.adopt", f"lost node {lost}"))


def _move(directory: Path, data_dir: Path, acting: Acting) -> None:
    from taximeter.budgets.slice_files import take_over
    from taximeter.journal.adopt import adopt as move

    journal = directory / "journal"
    with acting as change:
        moved = move(journal if journal.is_dir() else directory, data_dir / "journal")
        take_over(directory, data_dir)
        change.after = {"journals": len(moved)}
    count = "1 journal" if len(moved) == 1 else f"{len(moved)} journals"
    echo(f"Moved {count} of {directory} into {data_dir / 'journal'}.")


def _declare(node: str, data_dir: Path, acting: Acting) -> None:
    from taximeter.core.tags import is_valid
    from taximeter.journal import gone

    with acting:
        if not is_valid(node):
            raise ConfigError(f"{node!r} is no node's name; `taximeter status` tells them.")
        gone.declare(data_dir / "journal", [node])
    echo(f"What {node} had read of calls that are billed later is settled here. Do not start it again.")
