"""Closed statements in the history database: written once, kept for ever. The table is made at the first use.

It has metadata of its own, as the audit log has: a Taximeter that does not know it is not hindered by it.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Column, MetaData, Table, Text, func, inspect, select

from taximeter.billing.making import Stated
from taximeter.billing.period import Period
from taximeter.billing.rule import Plan, Rate
from taximeter.billing.statement import Statement
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.schema import Big
from taximeter.sinks.history.write.intern import insert_new

metadata = MetaData()

statements = Table(
    "billing_statements",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("number", Big, primary_key=True, autoincrement=False),
    Column("from_us", Big, nullable=False),
    Column("to_us", Big, nullable=False),
    Column("tz", Text, nullable=False),
    Column("closed_at_us", Big, nullable=False),
    Column("closed_by", Text, nullable=False),
    Column("statement", Text, nullable=False),
    Column("basis", Text, nullable=False),
)
"""A row a statement, never changed. `statement`: as it was shown (statement.Statement); `basis`: what it was made of
(Basis), which later ones are reckoned against. Both JSON."""


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """What a closed statement was made of."""

    plans: list[Plan]
    """Those that held: the period is charged by them for ever."""
    chunks: int
    rate: Rate
    stated: dict[int, list[Stated]]
    """Sums on this statement, by the number of the statement whose period they are of: its own, and earlier ones."""


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """A closed statement."""

    number: int
    period: Period
    statement: Statement
    basis: Basis


_encode = msgspec.json.Encoder(decimal_format="string").encode
_statement = msgspec.json.Decoder(Statement).decode
_basis = msgspec.json.Decoder(Basis).decode


class Statements:
    """Reads and writes them. Methods raise HistoryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._made = 0

    def of(self, workspace: str) -> list[Closed]:
        """Those of a workspace, by number."""
        with self._database.reading() as connection:
            if not inspect(connection).has_table(statements.name):
                return []
            query = select(statements).where(statements.c.workspace == workspace).order_by(statements.c.number)
            return [
                Closed(
                    number=row.number,
                    period=Period(from_us=row.from_us, to_us=row.to_us, tz=row.tz),
                    statement=_statement(row.statement),
                    basis=_basis(row.basis),
                )
                for row in connection.execute(query)
            ]

    def workspaces(self) -> list[str]:
        """Those with closed statements, sorted."""
        with self._database.reading() as connection:
            if not inspect(connection).has_table(statements.name):
                return []
            return sorted(connection.execute(select(statements.c.workspace).distinct()).scalars())

    def add(self, closed: Closed, at_us: int) -> bool:
        """Write one; False: meanwhile another took its number, and nothing was written."""
        self._prepare()
        written = closed.statement
        row = {
            "workspace": written.workspace,
            "number": closed.number,
            "from_us": closed.period.from_us,
            "to_us": closed.period.to_us,
            "tz": closed.period.tz,
            "closed_at_us": at_us,
            "closed_by": written.closed_by or "",
            "statement": _encode(written).decode(),
            "basis": _encode(closed.basis).decode(),
        }
        with self._database.writing() as connection:
            last = select(func.max(statements.c.number)).where(statements.c.workspace == written.workspace)
            if (connection.execute(last).scalar() or 0) != closed.number - 1:
                return False
            made = insert_new(statements, connection.dialect.name).values(row).returning(statements.c.number)
            return connection.execute(made).first() is not None

    def _prepare(self) -> None:
        self._database.prepare()
        if self._made == self._database.opened:
            return
        with self._database.writing() as connection:
            self._database.lock_schema(connection)
            metadata.create_all(connection)
        self._made = self._database.opened
