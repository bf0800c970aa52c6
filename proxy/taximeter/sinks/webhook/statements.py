"""What the webhook's books say to their database, built once: it is said many times a second."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, bindparam, delete, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from taximeter.core.bounds import MAX_SUM
from taximeter.sinks.cells import FIELDS
from taximeter.sinks.history.schema import Big
from taximeter.sinks.webhook.schema import cursors, outbox, sums, tracks

_of_ids = cursors.c.journal_id.in_(bindparam("ids", expanding=True))
_of_keys = outbox.c.key.in_(bindparam("keys", expanding=True))
_now: ColumnElement[int] = bindparam("now_us", type_=Big)
_sendable = and_(outbox.c.dead.is_(False), outbox.c.next_at <= _now)
CURSORS = select(cursors).where(_of_ids)
LOCKED = CURSORS.order_by(cursors.c.journal_id).with_for_update()
REACHED = update(cursors).where(cursors.c.journal_id == bindparam("journal")).values(seq=bindparam("upto"))
STANDING = select(
    select(func.count()).where(outbox.c.dead.is_(False)).scalar_subquery(),
    select(func.count()).where(outbox.c.dead.is_(True)).scalar_subquery(),
    exists().where(_sendable),
    exists().where(tracks.c.pending, tracks.c.active_at <= bindparam("idle_us", type_=Big)),
)
DUE = (
    select(outbox)
    .where(_sendable)
    .order_by(outbox.c.next_at, outbox.c.key)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
CLAIMED = update(outbox).where(_of_keys).values(attempts=outbox.c.attempts + 1, next_at=bindparam("until_us"))
_of_track, _this_track = (
    and_(*(table.c[name] == bindparam(f"of_{name}") for name in ("node", "workspace", "track")))
    for table in (sums, tracks)
)
SUMS_OF_TRACK, DELETE_SUMS = select(sums).where(_of_track), delete(sums).where(_of_track)
CUT_TRACK = update(tracks).where(_this_track).values(segment=bindparam("number"), pending=False)
ACCEPTED = delete(outbox).where(_of_keys)
REFUSED = (
    update(outbox)
    .where(outbox.c.key == bindparam("this"))
    .values(problem=bindparam("why"), next_at=bindparam("again_us"), dead=bindparam("given_up"))
)


def _bounded(sum_: ColumnElement[int], dialect: str) -> ColumnElement[int]:
    """A sum that stops at MAX_SUM (see core.bounds)."""
    least, greatest = (func.min, func.max) if dialect == "sqlite" else (func.least, func.greatest)
    return greatest(-MAX_SUM, least(MAX_SUM, sum_))


@cache
def moved(dialect: str) -> Any:
    """Something came to a track."""
    fresh = _upsert(tracks, dialect)
    return fresh.on_conflict_do_update(
        index_elements=["node", "workspace", "track"],
        set_={"active_at": fresh.excluded.active_at, "pending": True},
    )


@cache
def added(dialect: str) -> Any:
    """Sums of a track that grow."""
    fresh = _upsert(sums, dialect)
    return fresh.on_conflict_do_update(
        index_elements=["node", "workspace", "track", "operation", "model"],
        set_={field: _bounded(sums.c[field] + fresh.excluded[field], dialect) for field in FIELDS},
    )


def _upsert(table: Table, dialect: str) -> Any:
    return (sqlite.insert if dialect == "sqlite" else postgresql.insert)(table)
