"""`taximeter reload`: have the running one read its settings again, and say what became of that."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from taximeter.cli.run import BAD_SETTINGS, DEFAULT_FILES, FAILED
from taximeter.cli.show import echo
from taximeter.core.errors import ConfigError

if TYPE_CHECKING:
    from taximeter.node.datadir import Runtime
    from taximeter.node.reloaded import Reloaded

NOT_RUNNING = 3
WAIT_S = 300.0
"""It takes a second or two; a machine may be busy, and a worker that does not start is tried a few times."""
_LOOK_S = 0.02


@click.command("reload")
@click.option("--config", "file", type=click.Path(path_type=Path), help=DEFAULT_FILES)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def reload_(file: Path | None, as_json: bool) -> None:
    """Have the Taximeter that runs on this data directory read its settings again.

    They are judged as a whole; what is wrong with them refuses all of them, and those of before go on. New calls go by
    the new ones, calls in flight end by the old ones. What takes effect with a restart only is named. It reads the file
    it was started with, in the environment it was started in, with what `env_file` holds now.

    Exit codes: 0 taken, 1 taken but for a worker, or no answer, 2 refused, 3 nothing runs.
    """
    from taximeter.node.datadir import read_runtime

    data_dir, problem = _data_dir(file)
    runtime = read_runtime(data_dir)
    if runtime is None:
        echo(f"Error: {problem}" if problem else f"No Taximeter runs on {data_dir.absolute()}.", err=True)
        sys.exit(BAD_SETTINGS if problem else NOT_RUNNING)
    reloaded = _asked(runtime, data_dir)
    if reloaded is None:
        echo(f"Process {runtime.pid} did not say in {WAIT_S:g} s what became of it; see its log.", err=True)
        sys.exit(FAILED)
    if as_json:
        import msgspec

        echo(msgspec.json.encode(reloaded))
    else:
        for line in _lines(reloaded):
            echo(line, err=not reloaded.applied)
    sys.exit((FAILED if reloaded.problems else 0) if reloaded.applied else BAD_SETTINGS)


def _data_dir(file: Path | None) -> tuple[Path, str]:
    """Where it runs, also with settings that it is going to refuse; and what is wrong with them as read here."""
    from taximeter.config import load
    from taximeter.config.reading import data_dir

    try:
        return Path(load(file).data_dir), ""
    except ConfigError as error:
        return Path(data_dir(file, os.environ)), str(error)


def _asked(runtime: Runtime, data_dir: Path) -> Reloaded | None:
    """Ask, and wait for what became of it; None: nothing did in time, or the process is gone."""
    from taximeter.node.datadir import read_runtime
    from taximeter.node.reloaded import read_reloaded

    asked_at, until_s = time.time_ns() // 1_000, time.monotonic() + WAIT_S
    os.kill(runtime.pid, signal.SIGHUP)
    while time.monotonic() < until_s:
        reloaded = read_reloaded(data_dir)
        if reloaded is not None and reloaded.began_at >= asked_at:
            return reloaded
        if read_runtime(data_dir) is None:
            return None
        time.sleep(_LOOK_S)  # another process sends no event
    return None


def _lines(reloaded: Reloaded) -> list[str]:
    if not reloaded.applied:
        return ["REFUSED: the settings of before go on.", *(f"  ! {problem}" for problem in reloaded.problems)]
    took_s = (reloaded.ended_at - reloaded.began_at) / 1_000_000
    return [
        f"The settings are in force for new calls ({took_s:.1f} s).",
        f"  changed  {', '.join(reloaded.changed) or 'no setting; files that they name are read again'}",
        *(f"  {path} changed: restart to apply" for path in reloaded.restart),
        *(f"  ! {problem}" for problem in reloaded.problems),
    ]
