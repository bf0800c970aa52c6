"""What became of the last reload: `<data_dir>/reload.json`, written by the supervisor, read by control and the verb."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from taximeter.node.datadir import write_private

FILE = "reload.json"


class Reloaded(msgspec.Struct, kw_only=True):
    """One attempt to take other settings. Settings stand here by their paths, never with values."""

    began_at: int
    """µs since epoch, before anything was read."""
    ended_at: int
    asked_by: Literal["signal", "file"]
    """SIGHUP (`taximeter reload` sends it), or a file that changed."""
    applied: bool
    """false: refused as a whole; the settings of before are in force."""
    problems: list[str]
    """Why it was refused; where it was applied, what did not go well."""
    changed: list[str]
    """Settings in force that are others than before."""
    restart: list[str]
    """Settings that changed and take effect with a restart only."""


def read_reloaded(data_dir: Path) -> Reloaded | None:
    """The last one of the running Taximeter; None: there was none."""
    try:
        return msgspec.json.decode((data_dir / FILE).read_bytes(), type=Reloaded)
    except (OSError, ValueError):
        return None


def write_reloaded(data_dir: Path, reloaded: Reloaded) -> None:
    """Tell others on this machine. Raises OSError."""
    write_private(data_dir / FILE, msgspec.json.format(msgspec.json.encode(reloaded), indent=1) + b"\n")


def forget_reloaded(data_dir: Path) -> None:
    """There was none since the start."""
    (data_dir / FILE).unlink(missing_ok=True)
