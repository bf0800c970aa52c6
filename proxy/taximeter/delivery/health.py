"""How delivery is doing, as values; and what the writers' status files say."""

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


class SinkHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One sink."""

    lag_records: int | None
    """Records read from the journals that it does not have; None while it has never told where it is."""
    lag_seconds: float
    """Age of the oldest of these."""
    errors: int
    """Failed attempts since this process began."""
    duplicates_skipped: int
    """Records it answered to have already when they were offered."""
    failing: str | None
    """What it failed with, while it is failing."""
    set_aside: int = 0
    """Records it could not take, since this process began."""
    set_aside_records: int = 0
    """Of all times, those that still wait to be taken."""


class DeliveryHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Delivery and the journals of this node. Counts are since this process began."""

    sinks: dict[str, SinkHealth]
    in_flight: int
    journal_files: int
    journal_bytes: int
    lag_seconds: float
    """Of the sink furthest behind."""
    journal_healthy: bool
    """Every living writer can write."""
    journal_errors: int
    records_lost: int
    journal_repairs: int
    """Files that somebody took away, replaced or cut while they were being written."""
    unreadable_lines: int
    settled: int
    """Calls settled for writers that died."""
    halted: dict[str, str]
    """Journal files nothing is delivered from -> why; each needs an operator."""
    writers: list[Status]


class Writers:
    """The writers' own words, living and dead. A dead one's counts are kept and its file removed."""

    def __init__(self, directory: Path) -> None:
        self.living: list[Status] = []
        self._directory = directory
        self._errors = 0
        self._lost = 0
        self._repaired = 0

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
    def healthy(self) -> bool:
        return all(status.healthy for status in self.living)

    def refresh(self) -> None:
        """Read every status file. What a dead writer had saved of no call at all is lost with it."""
        living = []
        for path in self._directory.glob(f"*{STATUS_SUFFIX}"):
            fd = _lock(path)
            status = read_status(path)
            if fd is None:
                if status is not None:
                    living.append(status)
                continue
            if status is not None:
                self._errors += status.errors
                self._repaired += status.repaired
                self._lost += status.lost + status.unsaved
            path.unlink(missing_ok=True)
            os.close(fd)
        self.living = living


def _lock(path: Path) -> int | None:
    try:
        return lock_if_free(path)
    except OSError:
        return None
