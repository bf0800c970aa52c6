"""`adopt`: takes over the journals of a node that is gone for good."""

from __future__ import annotations

from pathlib import Path

import click

from taximeter.cli.options import guarded
from taximeter.cli.show import echo
from taximeter.config import load
from taximeter.node.audit import command_log


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings of the node that takes over.")
@guarded
def adopt(directory: Path, config_file: Path | None) -> None:
    """Move the journals of DIRECTORY, the data directory of a node that is gone, into this node's.

    Its records then reach every sink exactly once, its open calls are settled as interrupted. This node may run, or be
    started later. May be repeated after it was cut short.
    """
    from taximeter.journal.adopt import adopt as move

    settings = load(config_file)
    data_dir = Path(settings.data_dir)
    journal = directory / "journal"
    with command_log(settings).act("journal.adopt", str(directory)) as change:
        moved = move(journal if journal.is_dir() else directory, data_dir / "journal")
        change.after = {"journals": len(moved)}
    count = "1 journal" if len(moved) == 1 else f"{len(moved)} journals"
    echo(f"Moved {count} of {directory} into {data_dir / 'journal'}.")
