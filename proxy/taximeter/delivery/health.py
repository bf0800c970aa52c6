"""How far a drain came, what became of letters; and what the writers' status files say."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from taximeter.journal.files import lock_if_free
from taximeter.journal.format import STATUS_SUFFIX
from taximeter.journal.status import Status, read_status


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """How far a drain came."""

    complete: bool
    """Everything that was in the journal when it began is in the sinks asked for."""
    lag_seconds: float
    """Age of the oldest record that is not; 0 where there is none."""


class Replayed(msgspec.Struct, kw_only=True):
    """What became of letters whose records were offered again."""

    replayed: int
    failed: dict[str, str]
    """Key -> why its letter stays."""


class Writers:
    """The writers' own words, living and dead. A dead one's counts are kept and its file removed."""

    def __init__(self, directory: Path) -> None:
        self.living: list[Status] = []
        self._directory = directory
        self._known: dict[Path, Status] = {}
        self._errors = 0
        self._lost = 0
        self._repaired = 0
        self._redirects_away = 0
        self._open_files_ran_out = 0

    @property
    def errors(self) -> int:
        return self._errors + sum(status.errors for status in self.living)

    @property
    def lost(self) -> int:
        return self._lost + sum(status.lost for status in self.living)

    @property
    def repaired(self) -> int:
        return self._repaired + sum(status.repaired for status in self.living)

    @property
    def redirects_away(self) -> int:
        return self._redirects_away + sum(status.redirects_away for status in self.living)

    @property
    def open_files_ran_out(self) -> int:
        return self._open_files_ran_out + sum(status.open_files_ran_out for status in self.living)

    @property
    def healthy(self) -> bool:
        return all(status.healthy for status in self.living)

    def refresh(self) -> None:
        """Read every status file. What a dead writer had saved of no call at all is lost with it.

        One that the disk refuses to read stays, with what it said before: what it says is counted when it can be read.
        """
        known, self._known = self._known, {}
        for path in self._directory.glob(f"*{STATUS_SUFFIX}"):
            fd = _lock(path)
            try:
                status = read_status(path)
            except OSError:
                if path in known:
                    self._known[path] = known[path]
                if fd is not None:
                    os.close(fd)
                continue
            if fd is None:
                if status is not None:
                    self._known[path] = status
                continue
            if status is not None:
                self._errors += status.errors
                self._repaired += status.repaired
                self._redirects_away += status.redirects_away
                self._open_files_ran_out += status.open_files_ran_out
                self._lost += status.lost + status.unsaved
            path.unlink(missing_ok=True)
            os.close(fd)
        self.living = list(self._known.values())


def _lock(path: Path) -> int | None:
    try:
        return lock_if_free(path)
    except OSError:
        return None
