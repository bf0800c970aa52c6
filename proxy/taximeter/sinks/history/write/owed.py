"""What is billed later, as delivery brings it: promises, what was told of them, settlements. In its transaction.

Each line of an object is claimed by a row with a unique key, by whichever node delivers it first; that node's control
process writes the settlement, and the row says when it has arrived. So nothing is settled twice, however often and
wherever an object is fetched, and nothing is lost: a claim without its settlement stays to be written.

The key is the object's and the line's, also of a line that stood in a file: where it is not known yet whose file that
is, the claim is the file's, and `gather` makes it the object's before it is settled.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, select, update

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
    of_files: dict[_File, str | None] = {}
    for record in sorted(records, key=_order):
        if record.kind == TOLD:
            _told(connection, record, node, of_files)
        elif record.line is not None:
            _settled(connection, record)
        elif record.deferred is not None:
            _promised(connection, record)
        elif record.outcome is Outcome.OK:
            for file in record.files:
                _claim(connection, record, f"{FILE}{clean(file)}", "", node)


def gather(connection: Connection, node: str, limit: int) -> int:
    """Make this node's claims of files claims of the objects whose files they are, as far as that is known now; one
    that the object has already, from wherever, goes. Returns how many there were, at most `limit`."""
    of, whose = owed_lines.c, owed_files.c
    query = (
        select(owed_lines, whose.object.label("whose"))
        .join(owed_files, (whose.workspace == of.workspace) & (whose.provider == of.provider) & (whose.file == _file))
        .where(of.node == node, of.settled.is_(False), of.line != "", of.object.startswith(FILE, autoescape=True))
        .order_by(of.workspace, of.provider, whose.object, of.line)
        .limit(limit)
    )
    found = [dict(row) for row in connection.execute(query).mappings()]
    if found:
        claims = [{**{name: row[name] for name in _COLUMNS}, "object": row["whose"]} for row in found]
        connection.execute(insert_new(owed_lines, connection.dialect.name), claims)
        here = [getattr(of, key) == bindparam(f"of_{key}") for key in _KEY]
        connection.execute(delete(owed_lines).where(*here), [{f"of_{key}": row[key] for key in _KEY} for row in found])
    return len(found)


_COLUMNS = tuple(column.name for column in owed_lines.columns)
_KEY = tuple(column.name for column in owed_lines.primary_key)
_file = func.substr(owed_lines.c.object, len(FILE) + 1)
_File = tuple[str, str, str]
"""Workspace, provider, id."""


def _owner(connection: Connection, file: _File) -> str | None:
    """Whose lines a file holds, where that is known."""
    workspace, provider, name = file
    here = (owed_files.c.workspace == workspace) & (owed_files.c.provider == provider) & (owed_files.c.file == name)
    owner: str | None = connection.execute(select(owed_files.c.object).where(here)).scalar()
    return owner


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


def _told(connection: Connection, record: Record, node: str, of_files: dict[_File, str | None]) -> None:
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
    if record.line and name.startswith(FILE):
        held_in = record.workspace, record.provider, name.removeprefix(FILE)
        if held_in not in of_files:
            of_files[held_in] = _owner(connection, held_in)
        name = of_files[held_in] or name
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
    """A settlement has arrived."""
    name, line = clean(record.deferred or ""), clean(record.line or "")
    of = owed_lines.c
    mine = (
        (of.workspace == record.workspace) & (of.provider == record.provider) & (of.object == name) & (of.line == line)
    )
    connection.execute(update(owed_lines).where(mine).values(settled=True, told=""))
    if not line:
        here = (owed.c.workspace == record.workspace) & (owed.c.provider == record.provider) & (owed.c.object == name)
        told_at = select(of.at).where(mine).scalar_subquery()
        connection.execute(update(owed).where(here).values(state=ENDED, seen_at=told_at))


def _json(record: Record) -> str:
    return _encode(record).decode(errors="replace")
