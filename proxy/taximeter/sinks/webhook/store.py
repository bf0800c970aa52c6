"""The webhook's books: cursor, pending sums and outbox, each change one transaction. For one thread at a time.

Any node on a database may cut and send what another has left behind; rows are locked, keys carry the node that made
them. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Table, and_, delete, exists, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from taximeter.core.bounds import MAX_SUM
from taximeter.core.deferred import TOLD
from taximeter.core.names import clean
from taximeter.core.record import Record, seq_of
from taximeter.core.totals import saturated
from taximeter.sinks.batch import Batch, add
from taximeter.sinks.cells import FIELDS, empty
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.write.intern import insert_new
from taximeter.sinks.webhook.letters import Letter, Part, event_body, segment_body, segment_key
from taximeter.sinks.webhook.schema import cursors, metadata, outbox, retaken, sums, tracks

SumKey = tuple[str, str, str, str, str]
"""node, workspace, track, operation, model."""

CUT_AT_ONCE = 200
"""Idle tracks cut in one transaction."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How much is on its way."""

    waiting: int
    dead: int
    due: bool
    """A letter may be sent now."""
    idle: bool
    """A track may be cut now."""


class LetterResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one attempt; `problem` empty: accepted."""

    key: str
    problem: str = ""
    next_at: int = 0
    dead: bool = False


class Store:
    """Tables in a history database. Methods raise HistoryUnavailable; then nothing is known of their effect."""

    def __init__(self, database: Database, node: str, *, events: bool, now_us: Callable[[], int]) -> None:
        """`events`: a letter for each record (cloudevents) instead of segments."""
        self._database = database
        self._node = node
        self._events = events
        self._now_us = now_us

    def prepare(self) -> None:
        """Make the tables where they are missing."""
        with self._database.writing() as connection:
            self._database.lock_schema(connection)
            metadata.create_all(connection)

    def cursors(self, ids: Iterable[str]) -> dict[str, int]:
        """Last `seq` applied of each journal, 0 where nothing is known."""
        wanted = list(ids)
        found: dict[str, int] = {}
        with self._database.reading() as connection:
            for start in range(0, len(wanted), 500):  # SQLite takes no more than so many parameters in a statement
                query = select(cursors).where(cursors.c.journal_id.in_(wanted[start : start + 500]))
                found |= {row.journal_id: row.seq for row in connection.execute(query)}
        return {name: found.get(name, 0) for name in wanted}

    def apply(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Take each batch whose `after` is its journal's cursor; answer the actual cursors of these journals."""
        with self._database.writing() as connection:
            at = self._locked(connection, sorted({batch.journal_id for batch in batches}))
            taken: list[Record] = []
            for batch in sorted(batches, key=lambda batch: (batch.journal_id, batch.after)):
                if at[batch.journal_id] == batch.after:
                    at[batch.journal_id] = batch.upto
                    taken += batch.records
            for journal_id, seq in at.items():
                connection.execute(update(cursors).where(cursors.c.journal_id == journal_id).values(seq=seq))
            self._store(connection, taken)
        return at

    def retake(self, records: Sequence[Record]) -> None:
        """Take records that were set aside, each once however often it is offered.

        Raises ValueError where the cursor has not passed one yet, and would bring it.
        """
        with self._database.writing() as connection:
            for record in records:
                journal_id, seq = record.event_id.rpartition(":")[0], seq_of(record.event_id)
                if seq > self._locked(connection, [journal_id])[journal_id]:
                    raise ValueError(f"the webhook has not passed {record.event_id} yet")
                mine = retaken.c.event_id == record.event_id  # looked for under the cursor's lock
                if connection.execute(select(retaken).where(mine)).first() is None:
                    connection.execute(insert(retaken).values(event_id=record.event_id))
                    self._store(connection, [record])

    def _store(self, connection: Connection, records: Iterable[Record]) -> None:
        if self._events:
            self._post_events(connection, records)
        else:
            self._add_up(connection, records)

    def _locked(self, connection: Connection, ids: list[str]) -> dict[str, int]:
        query = select(cursors).where(cursors.c.journal_id.in_(ids)).order_by(cursors.c.journal_id).with_for_update()
        rows = connection.execute(query).all()
        if len(rows) < len(ids):
            for name in ids:
                fresh = insert_new(cursors, connection.dialect.name).values(journal_id=name, seq=0)
                connection.execute(fresh)
            rows = connection.execute(query).all()
        return {row.journal_id: row.seq for row in rows}

    def _post_events(self, connection: Connection, records: Iterable[Record]) -> None:
        for record in records:
            if record.kind == TOLD:  # what it tells comes as a settlement
                continue
            body = event_body(record, self._node)
            _post(connection, record.event_id, "event", record.workspace, record.track, body, self._now_us())

    def _add_up(self, connection: Connection, records: Iterable[Record]) -> None:
        cells: dict[SumKey, list[int]] = {}
        for record in records:
            # A correction changes cost only, which a segment does not carry.
            if record.track is not None and record.kind == "usage":
                operation, model = record.operation.value, clean(record.model)
                key = (self._node, record.workspace, record.track, operation, model)
                add(cells.setdefault(key, empty()), record)
        if not cells:
            return
        named = [{"node": n, "workspace": w, "track": t} for n, w, t in sorted({key[:3] for key in cells})]
        moved = _upsert(tracks, connection)
        moved = moved.on_conflict_do_update(
            index_elements=["node", "workspace", "track"],
            set_={"active_at": moved.excluded.active_at, "pending": True},
        )
        now_us = self._now_us()
        connection.execute(moved, [row | {"segment": 0, "active_at": now_us, "pending": True} for row in named])
        added = _upsert(sums, connection)
        added = added.on_conflict_do_update(
            index_elements=["node", "workspace", "track", "operation", "model"],
            set_={field: _bounded(sums.c[field] + added.excluded[field], connection) for field in FIELDS},
        )
        columns = [column.name for column in sums.columns]
        connection.execute(
            added, [dict(zip(columns, (*key, *saturated(cell)), strict=True)) for key, cell in sorted(cells.items())]
        )

    def cut(self, workspace: str, track: str) -> int:
        """End a track now; returns how many segments were made of it (0: nothing was pending)."""
        with self._database.writing() as connection:
            query = select(tracks).where(tracks.c.workspace == workspace, tracks.c.track == track, tracks.c.pending)
            found = connection.execute(query.order_by(tracks.c.node).with_for_update()).all()
            for row in found:
                self._cut(connection, row)
        return len(found)

    def cut_idle(self, before_us: int) -> int:
        """Cut the next tracks to which nothing came after `before_us`; returns how many."""
        with self._database.writing() as connection:
            query = select(tracks).where(tracks.c.pending, tracks.c.active_at <= before_us)
            query = query.order_by(tracks.c.active_at).limit(CUT_AT_ONCE).with_for_update(skip_locked=True)
            found = connection.execute(query).all()
            for row in found:
                self._cut(connection, row)
        return len(found)

    def _cut(self, connection: Connection, row: Row[Any]) -> None:
        names = {"node": row.node, "workspace": row.workspace, "track": row.track}
        of = and_(*(sums.c[name] == value for name, value in names.items()))
        parts = [
            Part(operation, model, cell)
            for _, _, _, operation, model, *cell in connection.execute(select(sums).where(of)).all()
        ]
        number = row.segment + 1
        body = segment_body(row.workspace, row.track, number, parts)
        key = segment_key(row.node, row.workspace, row.track, number)
        _post(connection, key, "segment", row.workspace, row.track, body, self._now_us())
        connection.execute(delete(sums).where(of))
        mine = and_(*(tracks.c[name] == value for name, value in names.items()))
        connection.execute(update(tracks).where(mine).values(segment=number, pending=False))

    def standing(self, now_us: int, idle_before_us: int) -> Standing:
        """What there is to do now; one look, nothing is changed."""
        due = exists().where(outbox.c.dead.is_(False), outbox.c.next_at <= now_us)
        idle = exists().where(tracks.c.pending, tracks.c.active_at <= idle_before_us)
        dead = select(func.count()).where(outbox.c.dead.is_(True)).scalar_subquery()
        waiting = select(func.count()).where(outbox.c.dead.is_(False)).scalar_subquery()
        with self._database.reading() as connection:
            row = connection.execute(select(waiting, dead, due, idle)).one()
        return Standing(waiting=row[0], dead=row[1], due=bool(row[2]), idle=bool(row[3]))

    def claim(self, now_us: int, lease_us: int, limit: int) -> list[Letter]:
        """Letters to be sent now, by nobody else until the lease is over; each counts as an attempt."""
        with self._database.writing() as connection:
            due = select(outbox).where(outbox.c.dead.is_(False), outbox.c.next_at <= now_us)
            rows = connection.execute(
                due.order_by(outbox.c.next_at, outbox.c.key).limit(limit).with_for_update(skip_locked=True)
            ).all()
            claimed = outbox.c.key.in_([row.key for row in rows])
            connection.execute(
                update(outbox).where(claimed).values(attempts=outbox.c.attempts + 1, next_at=now_us + lease_us)
            )
        letters = [_letter(row) for row in rows]
        for letter in letters:
            letter.attempts += 1
        return letters

    def finish(self, outcomes: Iterable[LetterResult]) -> None:
        """Write down what became of letters that were claimed; accepted ones go."""
        told = sorted(outcomes, key=lambda one: one.key)
        accepted = [one.key for one in told if not one.problem]
        with self._database.writing() as connection:
            if accepted:
                connection.execute(delete(outbox).where(outbox.c.key.in_(accepted)))
            for one in told:
                if not one.problem:
                    continue
                this = outbox.c.key == one.key
                after = {"problem": one.problem[:500], "next_at": one.next_at, "dead": one.dead}
                connection.execute(update(outbox).where(this).values(after))

    def letters(self, *, dead: bool | None = None, limit: int = 1_000) -> list[Letter]:
        """Letters not accepted yet, oldest first; `dead`: only those given up, or only those still tried."""
        query = select(outbox).order_by(outbox.c.created_at, outbox.c.key).limit(limit)
        if dead is not None:
            query = query.where(outbox.c.dead.is_(dead))
        with self._database.reading() as connection:
            return [_letter(row) for row in connection.execute(query)]

    def resend(self, keys: Sequence[str] | None = None) -> int:
        """Try dead letters again from the first attempt on: these, or all; returns how many."""
        revive = update(outbox).where(outbox.c.dead.is_(True))
        if keys is not None:
            revive = revive.where(outbox.c.key.in_(keys))
        with self._database.writing() as connection:
            return connection.execute(revive.values(dead=False, attempts=0, next_at=self._now_us())).rowcount

    def post_event(self, key: str, workspace: str, body: str) -> None:
        """Send an event of our own; one that is on its way already is left alone."""
        with self._database.writing() as connection:
            _post(connection, key, "event", workspace, None, body, self._now_us())

    def prune(self, before_us: int) -> int:
        """Forget tracks that were idle since then; one that comes back starts again at segment 1."""
        with self._database.writing() as connection:
            old = delete(tracks).where(tracks.c.pending.is_(False), tracks.c.active_at < before_us)
            return connection.execute(old).rowcount


def _post(
    connection: Connection, key: str, kind: str, workspace: str, track: str | None, body: str, now_us: int
) -> None:
    row: dict[str, object] = {
        "key": key,
        "kind": kind,
        "workspace": workspace,
        "track": track,
        "body": body.replace("\0", ""),
    }
    row |= {"created_at": now_us, "attempts": 0, "next_at": now_us, "dead": False, "problem": ""}
    if kind == "event":
        connection.execute(insert_new(outbox, connection.dialect.name).values(row))
    else:  # a segment's number is new by construction: a clash is a fault, and must not swallow usage
        connection.execute(insert(outbox).values(row))


def _letter(row: Row[Any]) -> Letter:
    return Letter(**row._mapping)


def _bounded(sum_: ColumnElement[int], connection: Connection) -> ColumnElement[int]:
    """A sum that stops at MAX_SUM (see core.bounds)."""
    sqlite_ = connection.dialect.name == "sqlite"
    least, greatest = (func.min, func.max) if sqlite_ else (func.least, func.greatest)
    return greatest(-MAX_SUM, least(MAX_SUM, sum_))


def _upsert(table: Table, connection: Connection) -> Any:
    maker = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return maker(table)
