"""What is billed later, as delivery brings it: promises, what was told of them, settlements. In its transaction.

Each line of an object is claimed by a row with a unique key, by whichever node delivers it first; that node's control
process writes the settlement, and the row says when it has arrived. So nothing is settled twice, however often and
wherever an object is fetched, and nothing is lost: a claim without its settlement stays to be written.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import ColumnElement, Connection, select, update

from taximeter.core.deferred import FILE, TOLD
from taximeter.core.names import clean
from taximeter.core.record import Outcome, Record
from taximeter.sinks.history.schema import owed, owed_files, owed_lines
from taximeter.sinks.history.write.intern import insert_new

OUTSTANDING, ENDED, EXPIRED = "outstanding", "ended", "expired"

_encode = msgspec.json.Encoder().encode


def concerns(record: Record) -> bool:
    """Whether a record has to do with what is billed later."""
    return record.deferred is not None or bool(record.files)


def take(connection: Connection, records: Iterable[Record], node: str) -> None:
    """Write down what these records say of it, in one order on every node; each may have been taken before."""
    for record in sorted(records, key=_order):
        if record.kind == TOLD:
            _told(connection, record, node)
        elif record.line is not None:
            _settled(connection, record)
        elif record.deferred is not None:
            _promised(connection, record)
        elif record.outcome is Outcome.OK:
            for file in record.files:
                _claim(connection, record, f"{FILE}{clean(file)}", "", node)


def _order(record: Record) -> tuple[str, str, str, str]:
    return record.workspace, record.provider, record.deferred or "", record.line or ""


def _promised(connection: Connection, record: Record) -> None:
    row = {
        "workspace": record.workspace,
        "provider": record.provider,
        "object": clean(record.deferred or ""),
        "request_id": record.request_id,
        "since": record.ended_at,
        "state": OUTSTANDING,
        "asked": _json(record),
    }
    connection.execute(insert_new(owed, connection.dialect.name).values(row))


def _told(connection: Connection, record: Record, node: str) -> None:
    name = clean(record.deferred or "")
    for file in record.files:
        row = {
            "workspace": record.workspace,
            "provider": record.provider,
            "file": clean(file),
            "object": name,
            "at": record.ended_at,
        }
        connection.execute(insert_new(owed_files, connection.dialect.name).values(row))
    _claim(connection, record, name, clean(record.line or ""), node)


def _claim(connection: Connection, record: Record, name: str, line: str, node: str) -> None:
    read = name.startswith(FILE) and not line  # that a file was read to its end: nothing to settle
    claim: dict[str, object] = {
        "workspace": record.workspace,
        "provider": record.provider,
        "object": name,
        "line": line,
        "node": node,
        "at": record.ended_at,
        "settled": read,
        "told": "" if read else _json(record),
    }
    connection.execute(insert_new(owed_lines, connection.dialect.name).values(claim))


def _settled(connection: Connection, record: Record) -> None:
    """A settlement has arrived. It names the object; its claim may name the file that told it."""
    name, line = clean(record.deferred or ""), clean(record.line or "")
    mine = (owed_lines.c.workspace == record.workspace) & (owed_lines.c.provider == record.provider)
    by_file = FILE + owed_files.c.file
    files = (
        (owed_files.c.workspace == record.workspace)
        & (owed_files.c.provider == record.provider)
        & (owed_files.c.object == name)
    )
    whose: ColumnElement[bool] = owed_lines.c.object == name
    if line:  # of a file, "" says that it was read
        whose |= owed_lines.c.object.in_(select(by_file).where(files))
    connection.execute(update(owed_lines).where(mine, whose, owed_lines.c.line == line).values(settled=True, told=""))
    if not line:
        told_at = select(owed_lines.c.at).where(mine, owed_lines.c.object == name, owed_lines.c.line == "")
        here = (owed.c.workspace == record.workspace) & (owed.c.provider == record.provider) & (owed.c.object == name)
        connection.execute(update(owed).where(here).values(state=ENDED, seen_at=told_at.scalar_subquery()))


def _json(record: Record) -> str:
    return _encode(record).decode(errors="replace")
