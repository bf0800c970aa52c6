"""What is owed: claims that a node has still to settle, and objects by which calls are billed later. Queries only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, select

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
    since: int
    """µs since epoch."""
    state: str
    """outstanding | ended | expired (written off)."""
    seen_at: int | None
    """When that was told, or it was written off."""
    unread: list[str]
    """Files of its results that nobody has read whole, where it was told that it has ended."""
    told: bool
    """Somebody told that it has ended."""
    asked: Record
    """The call."""


class OwedStanding(msgspec.Struct, kw_only=True):
    """How much is owed, by all nodes on the database."""

    outstanding: int = 0
    oldest_us: int | None = None
    expired: int = 0


def unsettled(connection: Connection, node: str, limit: int) -> list[Unsettled]:
    """Claims of a node without a settlement, of objects that were promised in the same workspace; oldest first. An
    object itself only once all files of its lines have been read. Of lines of files: those that were gathered."""
    of = owed_lines.c
    query = (
        select(owed.c.asked, of.told)
        .select_from(owed_lines)
        .join(owed, and_(*_same(owed.c, of), owed.c.object == of.object))
        .where(of.node == node, of.settled.is_(False), (of.line != "") | ~exists(_unread(of)))
        .order_by(of.at, of.workspace, of.provider, of.object, of.line)
        .limit(limit)
    )
    return [Unsettled(_decode(asked), _decode(told)) for asked, told in connection.execute(query)]


def listed(
    connection: Connection, workspace: str | None, states: Sequence[str], limit: int, before_us: int | None = None
) -> list[Owed]:
    """Objects in these states, the oldest first; `before_us`: those promised before only."""
    told = owed_lines.alias("told")
    query = (
        select(owed, told.c.line)
        .outerjoin(told, and_(*_same(told.c, owed.c), told.c.object == owed.c.object, told.c.line == ""))
        .where(owed.c.state.in_(states))
    )
    if workspace is not None:
        query = query.where(owed.c.workspace == workspace)
    if before_us is not None:
        query = query.where(owed.c.since < before_us)
    rows = connection.execute(query.order_by(owed.c.since, owed.c.object).limit(limit)).all()
    return [
        Owed(
            workspace=row.workspace,
            provider=row.provider,
            object=row.object,
            since=row.since,
            state=row.state,
            seen_at=row.seen_at,
            unread=[] if row.line is None else _files(connection, row.workspace, row.provider, row.object),
            told=row.line is not None,
            asked=_decode(row.asked),
        )
        for row in rows
    ]


def counted(connection: Connection, workspace: str, states: Sequence[str], from_us: int, to_us: int) -> int:
    """How many objects in these states were promised by calls that ended in a range."""
    mine = (owed.c.workspace == workspace) & owed.c.state.in_(states)
    query = select(func.count()).where(mine, owed.c.since >= from_us, owed.c.since < to_us)
    return int(connection.execute(query).scalar() or 0)


def standing(connection: Connection) -> OwedStanding:
    """How much is owed."""
    query = select(owed.c.state, func.count(), func.min(owed.c.since)).where(owed.c.state != "ended")
    rows = {state: (number, since) for state, number, since in connection.execute(query.group_by(owed.c.state))}
    number, oldest_us = rows.get("outstanding", (0, None))
    return OwedStanding(outstanding=number, oldest_us=oldest_us, expired=rows.get("expired", (0, None))[0])


def _files(connection: Connection, workspace: str, provider: str, name: str) -> list[str]:
    mine = (owed_files.c.workspace == workspace) & (owed_files.c.provider == provider) & (owed_files.c.object == name)
    query = select(owed_files.c.file).where(mine, ~exists(_read()))
    return sorted(connection.execute(query).scalars())


def _unread(of: Any) -> Select[Any]:
    """Files of this object's lines that nobody has read to their end."""
    these = (*_same(owed_files.c, of), owed_files.c.object == of.object)
    return select(owed_files.c.file).where(*these, ~exists(_read())).correlate(owed_lines)


def _read() -> Select[Any]:
    """That somebody has read a file to its end."""
    mark = owed_lines.alias("mark")
    of_file = (*_same(mark.c, owed_files.c), mark.c.object == FILE + owed_files.c.file, mark.c.line == "")
    return select(mark.c.object).where(*of_file).correlate(owed_files)


def _same(mine: Any, theirs: Any) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return mine.workspace == theirs.workspace, mine.provider == theirs.provider
