"""The read side of history: totals, tracks, single records. Synchronous; `History` wraps it for the control process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from taximeter.core.record import Record
from taximeter.sinks.history.query import Filters, Group, TrackPart, Window


class Reader:
    """Reads a history database; safe to use from several threads.

    Every method raises HistoryUnavailable when the database cannot be read.
    """

    @classmethod
    def open(cls, url: str) -> Self:
        """Open `sqlite:///path` (read-only) or `postgresql://…` without writing anything.

        Raises ConfigError when there is no history there, or one of a newer Taximeter.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release connections."""
        raise NotImplementedError

    def usage(
        self, filters: Filters, group_by: Sequence[str] = (), window: Window | None = None, tz: str = "UTC"
    ) -> list[Group]:
        """Sums by group and window, exact for any range; ordered by window, then key.

        Groups without records are left out.

        Without group_by and window: exactly one Group (zeros where nothing was used).
        Windows are cut at local `minute|hour|day|month` starts of the IANA zone `tz`, days of 23 and 25 hours included.
        Raises BadRequest on an unknown group-by or zone, or on more than 50,000 windows.
        """
        raise NotImplementedError

    def record(self, request_id: str) -> list[Record]:
        """Every attempt and correction of one request, in order; empty when unknown."""
        raise NotImplementedError

    def events(self, filters: Filters, limit: int = 100, page: str | None = None) -> tuple[list[Record], str | None]:
        """Newest first, at most `limit` (1-1000), and the cursor of the next page (None: that was all).

        Records that arrive while paging neither repeat nor hide others. Raises BadRequest on a bad cursor.
        """
        raise NotImplementedError

    def track(self, workspace: str, track: str) -> list[TrackPart]:
        """One track by document, operation, provider and model; empty when unknown."""
        raise NotImplementedError

    def top(self, filters: Filters, by: str, order: str = "cost_nusd", limit: int = 10) -> list[Group]:
        """The `limit` groups of `by` with the largest sum of a Totals field."""
        raise NotImplementedError

    def export(self, filters: Filters, chunk: int = 2_000) -> Iterator[list[Record]]:
        """All matching records, oldest first, in lists of at most `chunk`: bounded memory whatever the range."""
        raise NotImplementedError

    def count(self, filters: Filters) -> int:
        """How many records match: for progress bars."""
        raise NotImplementedError

    def values(self, name: str, filters: Filters | None = None) -> list[str]:
        """Every value seen of one of query.SERIES, sorted (of these filters on SERIES); for filter menus."""
        raise NotImplementedError


def default_url(data_dir: Path) -> str:
    """Where history is when `history.url` is empty."""
    return f"sqlite:///{data_dir / 'history.db'}"
