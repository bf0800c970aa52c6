"""How delivery and its sinks are doing, as values: for whoever shows them, the Prometheus sink among others."""

from __future__ import annotations

import msgspec

from taximeter.journal.status import Status


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
    redirects_away: int = 0
    """Redirects passed on that lead clients past the meter."""
    open_files_ran_out: int = 0
    """Clients turned away and connections not opened for the limit of open files."""
    unreadable_lines: int
    settled: int
    """Calls settled for writers that died."""
    halted: dict[str, str]
    """Journal files nothing is delivered from -> why; each needs an operator."""
    writers: list[Status]
