"""What is billed later, as delivery brings it: promises, what was told of them, settlements. In its transaction.

Each line of an object is claimed by a row with a unique key, by whichever node delivers it first; that node's control
process writes the settlement, and the row says when it has arrived. So nothing is settled twice, however often and
wherever an object is fetched, and nothing is lost: a claim without its settlement stays to be written.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, select, update

from taximeter.core.deferred import FILE, TOLD
from taximeter.core.record import Record
from taximeter.sinks.history.schema import owed, owed_files, owed_lines
from taximeter.sinks.history.write.intern import insert_new

OUTSTANDING, ENDED, EXPIRED = "outstanding", "ended", "expired"

_encode = msgspec.json.Encoder().encode


def concerns(record: Record) -> bool:
    """Whether a record has to do with what is billed later."""
    return record.deferred is not None


def take(connection: Connection, records: Iterable[Record], node: str) -> None:
    """Write down what these records say of it, in one order on every node; each may have been taken before."""
    for record in sorted(records, key=_order):
        if record.kind == TOLD:
            _told(connection, record, node)
        elif record.line is not None:
            _settled(connection, record)
        else:
            _promised(connection, record)


def _order(record: Record) -> tuple[str, str, str, str]:
    return record.workspace, record.provider, record.deferred or "", record.line or ""


def _promised(connection: Connection, record: Record) -> None:
    row = {
        "workspace": record.workspace,
        "provider": record.provider,
        "object": record.deferred,
        "request_id": record.request_id,
        "since": record.ended_at,
        "state": OUTSTANDING,
        "asked": _encode(record).decode(errors="replace"),
    }
    connection.execute(insert_new(owed, connection.dialect.name).values(row))


def _told(connection: Connection, record: Record, node: str) -> None:
    names = {"workspace": record.workspace, "provider": record.provider}
    for file in record.files:
        row = {**names, "file": file, "object": record.deferred}
        connection.execute(insert_new(owed_files, connection.dialect.name).values(row))
    claim: dict[str, object] = {
        **names,
        "object": record.deferred,
        "line": record.line or "",
        "node": node,
        "at": record.ended_at,
        "settled": False,
        "told": _encode(record).decode(errors="replace"),
    }
    connection.execute(insert_new(owed_lines, connection.dialect.name).values(claim))


def _settled(connection: Connection, record: Record) -> None:
    """A settlement has arrived. It names the object; its claim may name the file that told it."""
    mine = (owed_lines.c.workspace == record.workspace) & (owed_lines.c.provider == record.provider)
    by_file = FILE + owed_files.c.file
    files = (
        (owed_files.c.workspace == record.workspace)
        & (owed_files.c.provider == record.provider)
        & (owed_files.c.object == record.deferred)
    )
    whose = (owed_lines.c.object == record.deferred) | owed_lines.c.object.in_(select(by_file).where(files))
    done = update(owed_lines).where(mine, whose, owed_lines.c.line == record.line).values(settled=True, told="")
    connection.execute(done)
    if record.line == "":
        here = (
            (owed.c.workspace == record.workspace)
            & (owed.c.provider == record.provider)
            & (owed.c.object == record.deferred)
        )
        connection.execute(update(owed).where(here).values(state=ENDED, seen_at=record.ended_at))
