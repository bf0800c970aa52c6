"""The one transaction that applies batches: cursor, records and roll-ups together, or nothing. For one thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from taximeter.core.deferred import TOLD
from taximeter.core.record import Record, seq_of
from taximeter.sinks.batch import Batch, Group, grouped
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.rows import (
    ClassKey,
    OriginKey,
    SeriesKey,
    SummaryKey,
    charge_row,
    class_key,
    event_id,
    origin_key,
    series_key,
    summary_key,
    to_row,
)
from taximeter.sinks.history.schema import (
    LEVELS,
    SUMMARIES,
    SUMMARY_LEVELS,
    charges,
    classes,
    journals,
    meta,
    origins,
    series,
    summaries,
)
from taximeter.sinks.history.write import owed, retention, tag_rollups
from taximeter.sinks.history.write.chaining import chained
from taximeter.sinks.history.write.intern import Interned, insert_new
from taximeter.sinks.history.write.latencies import add_latencies
from taximeter.sinks.history.write.levels import Cells, add_to_levels, put
from taximeter.sinks.history.write.quantities import add_quantities
from taximeter.sinks.history.write.statements import Known, Row, Statements, known_of
from taximeter.sinks.sink import JournalState


def batched(names: Iterable[str], size: int) -> Iterator[list[str]]:
    """The names in lists of at most `size`."""
    rest = iter(names)
    while some := list(islice(rest, size)):
        yield some


_JOURNALS = select(journals).where(journals.c.journal_id.in_(bindparam("ids", expanding=True)))


class Writer:
    """Applies batches to a database. Not thread-safe."""

    def __init__(self, database: Database, node: str = "") -> None:
        """`node`: who settles what is told here of calls that are billed later."""
        self._database = database
        self._node = node
        self._series: Interned[SeriesKey] = Interned(series)
        self._origins: Interned[OriginKey] = Interned(origins)
        self._classes: Interned[ClassKey] = Interned(classes)
        self._summaries: Interned[SummaryKey] = Interned(summaries)
        self._partitions = retention.Partitions(database)
        self._opened = 0
        self.owed_news = 0
        """Grows with what has to do with what is billed later."""

    def prepare(self) -> None:
        """Make or check the schema."""
        with self._database.reading():
            pass

    def prune(self, before_us: int) -> int:
        """One bite of deleting what is known of single records that ended before this moment; 0: nothing is left.

        Returns how many records went; PostgreSQL: how many partitions, the month of `before_us` stays whole. Then how
        many rows of roll-ups by tag, of whole months too.
        """
        if self._database.dialect == "sqlite":
            gone = retention.delete_bite(self._database, before_us)
        else:
            gone = self._partitions.drop_before(before_us)
        return gone or retention.delete_tags(self._database, before_us)

    def journals(self, ids: Iterable[str]) -> dict[str, JournalState]:
        """Those of these journals history has ever seen."""
        found: dict[str, JournalState] = {}
        with self._database.reading() as connection:
            for some in batched(ids, 500):  # SQLite takes no more than so many parameters in a statement
                for row in connection.execute(_JOURNALS, {"ids": list(some)}):
                    found[row.journal_id] = JournalState(seq=row.seq, digest=row.digest, ended=row.ended)
        return found

    def apply(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Apply each batch whose `after` is its journal's cursor; return the actual cursors of these journals.

        Raises HistoryUnavailable: then it is not known whether the transaction took effect, and `journals` tells.
        """
        try:
            self._partitions.ensure(record.ended_at for batch in batches for record in batch.records)
            with self._database.writing() as connection:
                if self._opened != self._database.opened:  # another file: a back-up was put in place
                    self._forget_names()
                    self._opened = self._database.opened
                return self._apply(connection, sorted(batches, key=lambda batch: (batch.journal_id, batch.after)))
        except BaseException:
            self._forget_names()
            self._partitions.forget()
            raise

    def retake(self, records: Sequence[Record]) -> None:
        """Store records that were set aside, in one transaction; each once, however often it is offered.

        Raises HistoryUnavailable; ValueError where the cursor has not passed one yet, and would bring it.
        """
        try:
            self._partitions.ensure(record.ended_at for record in records)
            with self._database.writing() as connection:
                statements = Statements(connection)
                for record in records:
                    self._retake(connection, statements, record)
        finally:
            self._forget_names()
            self._partitions.forget()

    def _retake(self, connection: Connection, statements: Statements, record: Record) -> None:
        journal_id, seq = record.event_id.rpartition(":")[0], seq_of(record.event_id)
        _, number, cursor, last = next(iter(statements.journals([journal_id])), ("", 0, 0, ""))
        if seq > cursor:
            raise ValueError(f"history has not passed {record.event_id} yet")
        mark = f"retaken:{record.event_id}"  # looked for under the journal's lock
        if connection.execute(select(meta.c.name).where(meta.c.name == mark)).first() is None:
            connection.execute(insert(meta).values(name=mark, value=""))
            self._store(connection, statements, [(number, group) for group in grouped([record])])
            batch = Batch(journal_id=journal_id, after=seq - 1, upto=seq, records=[record])
            connection.execute(
                journals.update()
                .where(journals.c.journal_no == number)
                .values(chain=chained(statements, number, last, batch, late=True))
            )
            tag_rollups.retaken(connection, number, seq)

    def _forget_names(self) -> None:
        """Numbers remembered may not be in the database."""
        for interned in (self._series, self._origins, self._classes, self._summaries):
            interned.forget()

    def _apply(self, connection: Connection, batches: Sequence[Batch]) -> dict[str, int]:
        """Locks are taken in one order on every node: journals, names, then roll-up rows, each sorted."""
        statements = Statements(connection)
        numbers = self._locked(connection, statements, batches)
        taken: list[tuple[int, Group]] = []
        cursors = {batch.journal_id: numbers.get(batch.journal_id, (0, 0, ""))[1] for batch in batches}
        for batch in batches:
            if cursors[batch.journal_id] != batch.after:
                continue
            number, _, last = numbers[batch.journal_id]
            last = chained(statements, number, last, batch)
            numbers[batch.journal_id] = number, batch.upto, last
            statements.pass_on(number, batch.upto, batch.digest, batch.ended, last)
            cursors[batch.journal_id] = batch.upto
            taken += [(number, group) for group in batch.groups]
        if taken:
            self._store(connection, statements, taken)
        return cursors

    def _locked(
        self, connection: Connection, statements: Statements, batches: Sequence[Batch]
    ) -> dict[str, tuple[int, int, str]]:
        """(journal_no, seq, chain) of each batch's journal, those that begin now included, unknown ones left out."""
        ids = sorted({batch.journal_id for batch in batches})
        rows = statements.journals(ids)
        beginning = {batch.journal_id for batch in batches if batch.after == 0}.difference(name for name, *_ in rows)
        if beginning:
            fresh = {"seq": 0, "digest": "", "ended": False}
            for name in sorted(beginning):
                connection.execute(insert_new(journals, connection.dialect.name).values(journal_id=name, **fresh))
            rows = statements.journals(ids)
        return {name: (number, seq, last) for name, number, seq, last in rows}

    def _store(self, connection: Connection, statements: Statements, everything: Sequence[tuple[int, Group]]) -> None:
        later = [each for _, group in everything for each in group.records if owed.concerns(each)]
        taken = [(number, group) for number, group in everything if group.record.kind != TOLD] if later else everything
        names = [series_key(group.record) for _, group in taken]
        from_where = [origin_key(group.record) for _, group in taken]
        kinds = [class_key(group.record) for _, group in taken]
        series_no = self._series.numbers(connection, names)
        origin_no = self._origins.numbers(connection, from_where)
        class_no = self._classes.numbers(connection, kinds)
        quarters: Cells = {}
        charged: list[dict[str, Any]] = []
        named: dict[int, SeriesKey] = {}
        rows: dict[Known, list[Row]] = {}
        for (journal_no, group), name, origin, kind in zip(taken, names, from_where, kinds, strict=True):
            number = series_no[name]  # the same for names that are stored alike, being cut
            named[number] = name
            numbers = number, origin_no[origin], class_no[kind]
            rows.setdefault(known_of(group.record), []).extend(
                [to_row(record, event_id(journal_no, seq_of(record.event_id)), *numbers) for record in group.records]
            )
            put(quarters, (group.quarter_s, number), group.cell)
            charged += [
                charge_row(record, event_id(journal_no, seq_of(record.event_id)))
                for record in group.records
                if record.charged_tokens is not None
                or record.charged_cost_nusd is not None
                or record.charged_audio_ms is not None
            ]
        statements.insert(rows)
        if charged:
            connection.execute(charges.insert(), charged)
        add_to_levels(statements, LEVELS, quarters)
        self._summarise(connection, statements, quarters, named)
        if later:
            owed.take(connection, later, self._node)
            self.owed_news += 1
        add_quantities(connection, [(group, series_no[name]) for (_, group), name in zip(taken, names, strict=True)])
        add_latencies(statements, [(group, series_no[name]) for (_, group), name in zip(taken, names, strict=True)])

    def _summarise(
        self, connection: Connection, statements: Statements, quarters: Cells, named: Mapping[int, SeriesKey]
    ) -> None:
        keys = {number: [summary_key(kept, name) for kept in SUMMARIES] for number, name in named.items()}
        numbers = self._summaries.numbers(connection, chain.from_iterable(keys.values()))
        sums: Cells = {}
        for (at, number), cell in quarters.items():
            for key in keys[number]:
                put(sums, (at, numbers[key]), cell)
        add_to_levels(statements, SUMMARY_LEVELS, sums)
