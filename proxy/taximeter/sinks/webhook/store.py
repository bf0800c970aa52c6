"""The webhook's books: cursor, pending sums and outbox, each change one transaction. For one thread at a time.

Any node on a database may cut and send what another has left behind; rows are locked, keys carry the node that made
them. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, update

from taximeter.core.deferred import TOLD
from taximeter.core.names import clean
from taximeter.core.record import Record, seq_of
from taximeter.core.totals import saturated
from taximeter.sinks.batch import Batch, add
from taximeter.sinks.cells import empty
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.write.intern import insert_new
from taximeter.sinks.webhook import statements
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
                rows = connection.execute(statements.CURSORS, {"ids": wanted[start : start + 500]})
                found |= {row.journal_id: row.seq for row in rows}
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
            if at:
                connection.execute(statements.REACHED, [{"journal": name, "upto": seq} for name, seq in at.items()])
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
        rows = connection.execute(statements.LOCKED, {"ids": ids}).all()
        if len(rows) < len(ids):
            fresh = insert_new(cursors, connection.dialect.name)
            connection.execute(fresh, [{"journal_id": name, "seq": 0} for name in ids])
            rows = connection.execute(statements.LOCKED, {"ids": ids}).all()
        return {row.journal_id: row.seq for row in rows}

    def _post_events(self, connection: Connection, records: Iterable[Record]) -> None:
        _post(
            connection,
            [
                self._row(record.event_id, "event", record.workspace, record.track, event_body(record, self._node))
                for record in records
                if record.kind != TOLD  # what it tells comes as a settlement
            ],
        )

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
        now_us = self._now_us()
        connection.execute(
            statements.moved(connection.dialect.name),
            [row | {"segment": 0, "active_at": now_us, "pending": True} for row in named],
        )
        columns = [column.name for column in sums.columns]
        connection.execute(
            statements.added(connection.dialect.name),
            [dict(zip(columns, (*key, *saturated(cell)), strict=True)) for key, cell in sorted(cells.items())],
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
        names = {"of_node": row.node, "of_workspace": row.workspace, "of_track": row.track}
        parts = [
            Part(operation, model, cell)
            for _, _, _, operation, model, *cell in connection.execute(statements.SUMS_OF_TRACK, names).all()
        ]
        number = row.segment + 1
        body = segment_body(row.workspace, row.track, number, parts)
        key = segment_key(row.node, row.workspace, row.track, number)
        _post(connection, [self._row(key, "segment", row.workspace, row.track, body)])
        connection.execute(statements.DELETE_SUMS, names)
        connection.execute(statements.CUT_TRACK, names | {"number": number})

    def standing(self, now_us: int, idle_before_us: int) -> Standing:
        """What there is to do now; one look, nothing is changed."""
        with self._database.reading() as connection:
            row = connection.execute(statements.STANDING, {"now_us": now_us, "idle_us": idle_before_us}).one()
        return Standing(waiting=row[0], dead=row[1], due=bool(row[2]), idle=bool(row[3]))

    def claim(self, now_us: int, lease_us: int, limit: int) -> list[Letter]:
        """Letters to be sent now, by nobody else until the lease is over; each counts as an attempt."""
        with self._database.writing() as connection:
            rows = connection.execute(statements.DUE, {"now_us": now_us, "most": limit}).all()
            connection.execute(statements.CLAIMED, {"keys": [row.key for row in rows], "until_us": now_us + lease_us})
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
                connection.execute(statements.ACCEPTED, {"keys": accepted})
            if refused := [one for one in told if one.problem]:
                connection.execute(
                    statements.REFUSED,
                    [
                        {"this": one.key, "why": one.problem[:500], "again_us": one.next_at, "given_up": one.dead}
                        for one in refused
                    ],
                )

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
            _post(connection, [self._row(key, "event", workspace, None, body)])

    def _row(self, key: str, kind: str, workspace: str, track: str | None, body: str) -> dict[str, object]:
        """A letter that is to be sent at once."""
        now_us = self._now_us()
        row: dict[str, object] = {"key": key, "kind": kind, "workspace": workspace, "track": track}
        row |= {"body": body.replace("\0", ""), "created_at": now_us, "attempts": 0}
        return row | {"next_at": now_us, "dead": False, "problem": ""}

    def prune(self, before_us: int) -> int:
        """Forget tracks that were idle since then; one that comes back starts again at segment 1."""
        with self._database.writing() as connection:
            old = delete(tracks).where(tracks.c.pending.is_(False), tracks.c.active_at < before_us)
            return connection.execute(old).rowcount


def _post(connection: Connection, rows: Sequence[dict[str, object]]) -> None:
    """Letters of one kind."""
    if rows and rows[0]["kind"] == "event":
        connection.execute(insert_new(outbox, connection.dialect.name), rows)
    elif rows:  # a segment's number is new by construction: a clash is a fault, and must not swallow usage
        connection.execute(insert(outbox), rows)


def _letter(row: Row[Any]) -> Letter:
    return Letter(**row._mapping)
