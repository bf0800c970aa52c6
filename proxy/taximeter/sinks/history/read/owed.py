"""What is owed: claims that a node has still to settle, and objects that are outstanding. Queries only."""

from __future__ import annotations

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, and_, or_, select
from sqlalchemy.sql.elements import KeyedColumnElement

from taximeter.core.deferred import FILE
from taximeter.core.record import Record
from taximeter.sinks.history.schema import owed, owed_files, owed_lines

_decode = msgspec.json.Decoder(Record).decode


class Unsettled(msgspec.Struct):
    """What was told of a call that was promised it, and what has not been settled."""

    asked: Record
    told: Record


class Owed(msgspec.Struct, kw_only=True):
    """An object by which a call is billed later."""

    workspace: str
    provider: str
    object: str
    request_id: str
    since: int
    """µs since epoch."""
    state: str


def unsettled(connection: Connection, node: str, limit: int) -> list[Unsettled]:
    """Claims of a node without a settlement, of objects that were promised in the same workspace; oldest first."""
    of = owed_lines.c
    query = (
        select(owed.c.asked, of.told)
        .select_from(owed_lines)
        .outerjoin(
            owed_files,
            and_(*_same(owed_files.c), of.object == FILE + owed_files.c.file),
        )
        .join(owed, and_(*_same(owed.c), or_(owed.c.object == of.object, owed.c.object == owed_files.c.object)))
        .where(of.node == node, of.settled.is_(False))
        .order_by(of.at, of.workspace, of.provider, of.object, of.line)
        .limit(limit)
    )
    return [Unsettled(_decode(asked), _decode(told)) for asked, told in connection.execute(query)]


def outstanding(connection: Connection, workspace: str | None, limit: int) -> list[Owed]:
    """Objects that have not ended as far as anybody has told, the oldest first."""
    query: Select[tuple[str, ...]] = select(
        owed.c.workspace, owed.c.provider, owed.c.object, owed.c.request_id, owed.c.since, owed.c.state
    ).where(owed.c.state == "outstanding")
    if workspace is not None:
        query = query.where(owed.c.workspace == workspace)
    rows = connection.execute(query.order_by(owed.c.since, owed.c.object).limit(limit))
    return [Owed(**row._mapping) for row in rows]


def _same(columns: object) -> tuple[ColumnElement[bool], ...]:
    mine: KeyedColumnElement[str] = columns.workspace  # type: ignore[attr-defined]
    theirs: KeyedColumnElement[str] = columns.provider  # type: ignore[attr-defined]
    return (mine == owed_lines.c.workspace, theirs == owed_lines.c.provider)
