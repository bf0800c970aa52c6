"""The read side of history: totals, tracks, single records. Synchronous; `sink.History` wraps it.

Totals come from the coarsest roll-ups that fit; single records answer only what those cannot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Self

from msgspec.structs import replace
from sqlalchemy import Connection, func, select

from taximeter.core.bounds import FOREVER_US
from taximeter.core.record import Record
from taximeter.sinks.cells import empty, merge, split
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.exact import of_any_size
from taximeter.sinks.history.marks import APART, events_since_us, since_us
from taximeter.sinks.history.read import latencies, listing, names, owed, quantities, stretches
from taximeter.sinks.history.read.combining import Sums, cells
from taximeter.sinks.history.read.unpriced import Unpriced, unpriced
from taximeter.sinks.history.schema import QUARTER, QUARTER_S, US, meta
from taximeter.sinks.history.sums import record_sums
from taximeter.sinks.history.windows import boundaries
from taximeter.sinks.query import (
    NEWEST,
    SERIES,
    TAGS,
    Filters,
    Group,
    Latency,
    Listing,
    Match,
    QuantitySum,
    Ranked,
    Sort,
    TrackPart,
    Window,
    checked,
    span,
)


class Reader:
    """Reads a history database; safe to use from several threads.

    Every method raises HistoryUnavailable when the database cannot be read, ConfigError when it is no history of ours.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, url: str) -> Self:
        """Open `sqlite:///path` (read-only) or `postgresql://…` without writing anything.

        Raises ConfigError when there is no history there, or one of a newer Taximeter.
        """
        database = Database(url, read_only=True)
        try:
            database.prepare()
        except BaseException:
            database.dispose()
            raise
        return cls(database)

    def close(self) -> None:
        """Release connections."""
        self.database.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @of_any_size
    def usage(
        self, filters: Filters, group_by: Sequence[str] = (), window: Window | None = None, tz: str = "UTC"
    ) -> list[Group]:
        """Sums by group and window, exact for any range; ordered by window, then key.

        Groups without records are left out, but without group_by and window there is exactly one (zeros where nothing
        was used). Windows are cut at local `minute|hour|day|month` starts of the IANA zone `tz`, days of 23 and 25
        hours included. Where single records are gone (`history.retention_days`), ranges and windows are rounded to
        15 minutes (grouped by one of query.TAGS: to hours), and of tags before the month nothing is found.
        Raises BadRequest on an unknown group-by or zone, or on more than 50,000 windows.
        """
        return self._groups(filters, checked(group_by), window, tz)

    @of_any_size
    def by_upstream(self, filters: Filters, group_by: Sequence[str], window: Window) -> list[Group]:
        """The same by upstream, which only single records know: each of the range is read."""
        return self._groups(filters, ("upstream", *checked(group_by)), window, "UTC")

    def parts(
        self, filters: Filters, group_by: Sequence[str], window: Window | None = None, tz: str = "UTC"
    ) -> Iterator[list[Group]]:
        """The same groups as `usage` has, however many, in lists of some thousand. All windows of a group stand
        together, in order of time; groups are in the order of one of their names.

        Each list is read in a transaction of its own, as `export`'s are: of calls that end meanwhile, those are in of
        which the group has not been read. A range without an end goes until what was known at the first list.
        """
        names = checked(group_by)
        with self.database.reading() as connection:
            start_us, end_us = _known_span(connection, *span(filters))
            ranged = replace(filters, from_us=start_us, to_us=max(start_us, end_us))
            marks = self._marks(connection, ranged, window, tz)
        if marks[0] == marks[-1]:
            return
        asking = stretches.parts(self.database, filters, names, marks)
        asked = next(asking, None)
        while asked is not None:
            sums = self._part(asked, names, marks)
            found = [_group(names, marks if window else None, item) for item in sorted(sums.items(), key=_by_key)]
            if found:
                yield found
            try:
                asked = asking.send(len(found))
            except StopIteration:
                return

    @of_any_size
    def _part(self, filters: Filters, names: tuple[str, ...], marks: Sequence[int]) -> Sums:
        with self.database.reading() as connection:
            return self._sums(connection, filters, names, marks)

    def _groups(self, filters: Filters, names: tuple[str, ...], window: Window | None, tz: str) -> list[Group]:
        with self.database.reading() as connection:
            marks = self._marks(connection, filters, window, tz)
            sums = self._sums(connection, filters, names, marks)
        if not names and window is None:
            sums.setdefault((0, ()), empty())
        return [_group(names, marks if window else None, item) for item in sorted(sums.items(), key=_order)]

    def _marks(self, connection: Connection, filters: Filters, window: Window | None, tz: str) -> list[int]:
        start_us, end_us = span(filters)
        if window is None:
            return [start_us, end_us]
        start_us, end_us = _known_span(connection, start_us, end_us)
        return boundaries(start_us, end_us, window, tz) if start_us < end_us else [start_us, start_us]

    def _sums(self, connection: Connection, filters: Filters, names: tuple[str, ...], marks: Sequence[int]) -> Sums:
        sums: Sums = {}
        for window, key, cell in cells(connection, filters, names, marks):
            if (window, key) in sums:
                merge(sums[window, key], cell)
            else:
                sums[window, key] = cell
        return {place: cell for place, cell in sums.items() if any(cell)}

    @of_any_size
    def stretches(self, filters: Filters, asked: Sequence[tuple[tuple[str, ...], Sequence[int]]]) -> list[Sums]:
        """Of each (names to group by, marks in µs) the cells between its marks, by (stretch, key): one snapshot, so
        that what is asked together adds up. Where single records are gone, marks are rounded to 15 minutes.
        """
        with self.database.reading() as connection:
            return [self._sums(connection, filters, names, marks) for names, marks in asked]

    def unpriced(self, workspace: str, from_us: int, to_us: int) -> list[Unpriced] | None:
        """Why calls of a workspace have no cost (see read.unpriced); None: there are too many to look at."""
        with self.database.reading() as connection:
            return unpriced(connection, workspace, from_us, to_us)

    def owed(self, workspace: str, states: Sequence[str], from_us: int, to_us: int) -> int:
        """How many objects in these states calls that ended in a range are billed by later."""
        with self.database.reading() as connection:
            return owed.counted(connection, workspace, states, from_us, to_us)

    def records_since_us(self) -> int:
        """Single records before this moment have been deleted; 0: none has."""
        with self.database.reading() as connection:
            return events_since_us(connection)

    @of_any_size
    def ranked(self, filters: Filters, by: str, most: int, window: Window, tz: str = "UTC") -> Ranked:
        """The groups of `by`, and the windows (see `usage`) of the `most` most expensive of them and of all.

        The same figures as `usage` gives, without the windows of groups too small to be shown: a chart needs no more.
        """
        names = checked([by])
        with self.database.reading() as connection:
            marks = self._marks(connection, filters, window, tz)
            whole = self._sums(connection, filters, names, list(span(filters)))
            groups = sorted((_group(names, None, item) for item in whole.items()), key=_weight)
            first = [group.key[by] or "" for group in groups[:most]]
            asked = filters if by in TAGS else replace(filters, **{by: first})  # tags are known longer than records
            largest = self._sums(connection, asked, names, marks) if first else {}
            largest = {place: cell for place, cell in largest.items() if (place[1][0] or "") in first}
            if len(groups) > most:
                everything = self._sums(connection, filters, (), marks)
            else:
                everything = {}
                for (number, _), cell in largest.items():
                    merge(everything.setdefault((number, ()), empty()), cell)
        return Ranked(
            groups=groups,
            largest=[_group(names, marks, item) for item in sorted(largest.items(), key=_order)],
            everything=[_group((), marks, item) for item in sorted(everything.items(), key=_order)],
        )

    def latency(self, filters: Filters, by: str, marks: Sequence[int]) -> Latency:
        """Percentiles of the calls that ended well between the first mark and the last (µs): of all, by group, and of
        the windows between the marks. See query.Latency for what they are made of. Raises BadRequest on an unknown
        group.
        """
        (name,) = checked([by])
        ranged = replace(filters, from_us=marks[0], to_us=marks[-1])
        known = latencies.known_to_histograms(ranged) and name in SERIES
        attempts = self.usage(ranged)[0].details.attempts
        with self.database.reading() as connection:
            if attempts <= (latencies.FEW if known else latencies.MOST):
                return latencies.of_records(connection, ranged, name, marks)
            if not known:
                return latencies.unknown()
            return latencies.of_histograms(connection, ranged, name, marks, since_us(connection, APART))

    def quantities(self, filters: Filters, group_by: Sequence[str]) -> list[QuantitySum]:
        """See quantities.sums."""
        with self.database.reading() as connection:
            return quantities.sums(connection, filters, checked(group_by))

    def apart_since_us(self) -> int:
        """Before this moment refusals are not told apart from errors; 0: they always were."""
        with self.database.reading() as connection:
            return since_us(connection, APART)

    def record(self, request_id: str) -> list[Record]:
        """Every attempt and correction of one request, in order, but no lines of a batch; empty when unknown."""
        with self.database.reading() as connection:
            return listing.attempts(connection, request_id)

    def request(self, request_id: str, limit: int, page: str | None = None) -> tuple[list[Record], str | None]:
        """The same with up to `limit` lines of a batch, and the cursor of the next page, which has further ones. Raises
        BadRequest on a bad cursor."""
        with self.database.reading() as connection:
            return listing.page_of_request(connection, request_id, limit, page)

    def arrived(self, request_ids: Collection[str]) -> set[tuple[str, str]]:
        """(request, its workspace) of those of these requests that there are records of."""
        with self.database.reading() as connection:
            return listing.arrived(connection, request_ids)

    def events(self, filters: Filters, limit: int = 100, page: str | None = None) -> tuple[list[Record], str | None]:
        """Newest first, at most `limit` (1-1000), and the cursor of the next page (None: that was all).

        Records that arrive while paging neither repeat nor hide others. Raises BadRequest on a bad cursor or limit.
        """
        with self.database.reading() as connection:
            return listing.newest(connection, filters, limit, page)

    def listing(self, filters: Filters, limit: int, page: str | None = None, sort: Sort = NEWEST) -> Listing:
        """A page in any order, with the cursors of the pages before and after it. Raises BadRequest on a bad cursor.

        In another order than by time every record that matches is looked at.
        """
        with self.database.reading() as connection:
            return listing.listed(connection, filters, limit, page, sort)

    def names(self, workspace: str | None = None) -> dict[str, list[str]]:
        """The values there are of each of query.SERIES, at most names.MOST and one; see names.offered."""
        with self.database.reading() as connection:
            return names.offered(connection, workspace)

    def search(self, text: str, workspace: str | None = None) -> list[Match]:
        """The names that hold this text: of query.SERIES and query.TAGS."""
        with self.database.reading() as connection:
            return names.matching(connection, text, workspace)

    def export(self, filters: Filters, chunk: int = 2_000) -> Iterator[list[Record]]:
        """All matching records, oldest first, in lists of at most `chunk`: bounded memory whatever the range.

        Each list is read in a transaction of its own: a long export holds nothing open.
        """
        place = listing.START
        while True:
            with self.database.reading() as connection:
                records, place = listing.oldest(connection, filters, chunk, place)
            if records:
                yield records
            if len(records) < chunk:
                return

    def count(self, filters: Filters) -> int:
        """How many records match: for progress bars."""
        details = self.usage(filters)[0].details
        return details.attempts + details.corrections

    @of_any_size
    def track(
        self, workspace: str, track: str, from_us: int | None = None, to_us: int | None = None
    ) -> list[TrackPart]:
        """One track, or a range of it, by document, operation, provider and model; empty when unknown."""
        filters = Filters(workspace=workspace, track=track, from_us=from_us, to_us=to_us)
        names = ("document", "operation", "provider", "model")
        found: dict[tuple[str | None, ...], tuple[int, int, list[int]]] = {}
        with self.database.reading() as connection:
            for part in record_sums(connection, filters, *span(filters), names):
                first_us, last_us, cell = found.get(part.key, (part.first_us, part.last_us, empty()))
                merge(cell, part.cell)
                found[part.key] = (min(first_us, part.first_us), max(last_us, part.last_us), cell)
        return [_track_part(key, *found[key]) for key in sorted(found, key=_nones_first)]

    def identity(self) -> str:
        """The random id this database was made with."""
        with self.database.reading() as connection:
            return str(connection.execute(select(meta.c.value).where(meta.c.name == "id")).scalar_one())


def _known_span(connection: Connection, start_us: int, end_us: int) -> tuple[int, int]:
    """An unbounded range cut to where there are records: windows have to begin and end somewhere."""
    # One end a statement: SQLite finds either at once, both together only by reading the whole table.
    if start_us == 0:
        start_us = (connection.execute(select(func.min(QUARTER.c.start_s))).scalar() or 0) * US
    if end_us == FOREVER_US:
        last_s = connection.execute(select(func.max(QUARTER.c.start_s))).scalar()
        end_us = start_us if last_s is None else (last_s + QUARTER_S) * US
    return start_us, end_us


def _group(
    names: tuple[str, ...],
    marks: Sequence[int] | None,
    item: tuple[tuple[int, tuple[str | None, ...]], list[int]],
) -> Group:
    (window, values), cell = item
    summed, details = split(cell)
    return Group(
        key=dict(zip(names, values, strict=True)),
        start_us=marks[window] if marks else None,
        end_us=marks[window + 1] if marks else None,
        totals=summed,
        details=details,
    )


def _weight(group: Group) -> tuple[int, int, list[str]]:
    return -group.totals.cost_nusd, -group.totals.total_tokens, _nones_first(tuple(group.key.values()))


def _order(item: tuple[tuple[int, tuple[str | None, ...]], list[int]]) -> tuple[int, list[str]]:
    (window, key), _ = item
    return window, _nones_first(key)


def _by_key(item: tuple[tuple[int, tuple[str | None, ...]], list[int]]) -> tuple[list[str], int]:
    (window, key), _ = item
    return _nones_first(key), window


def _nones_first(key: tuple[str | None, ...]) -> list[str]:
    return [value or "" for value in key]  # no name is ""


def _track_part(key: tuple[str | None, ...], first_us: int, last_us: int, cell: list[int]) -> TrackPart:
    document, operation, provider, model = key
    summed, details = split(cell)
    return TrackPart(
        document=document,
        operation=operation or "",
        provider=provider or "",
        model=model or "",
        first_us=first_us,
        last_us=last_us,
        totals=summed,
        details=details,
    )
