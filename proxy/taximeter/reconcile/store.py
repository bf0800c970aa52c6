"""What comparisons with providers came to, in the history, for all nodes on it. Its tables are made at the first use.

They are tables of their own, as the audit log's is: a Taximeter that does not know them is not hindered by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, SmallInteger, Table, Text, delete, select

from taximeter.reconcile.rule import Cell, Figures, Ours
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.schema import Big
from taximeter.sinks.history.write.intern import insert_new

T = TypeVar("T")

metadata = MetaData()

_OURS, _THEIRS = Ours.__struct_fields__, Figures.__struct_fields__

cells = Table(
    "reconciled",
    metadata,
    *(Column(name, Text, nullable=False) for name in ("name", "day", "model", "key")),
    Column("passed", SmallInteger, nullable=False),
    Column("told", SmallInteger, nullable=False),
    *(Column(f"our_{name}", Big) for name in _OURS),
    *(Column(f"their_{name}", Big) for name in _THEIRS),
    PrimaryKeyConstraint("name", "day", "model", "key"),
)
"""One row a Cell. `passed`: calls of it passed here; `told`: they say something of it. A null figure: not known, or not
told."""

runs = Table(
    "reconcile_runs",
    metadata,
    Column("name", Text, primary_key=True),
    Column("done_at", Big, nullable=False),
    Column("due_at", Big, nullable=False),
    Column("from_day", Text, nullable=False),
    Column("to_day", Text, nullable=False),
    Column("attempts", Big, nullable=False),
    Column("next_at", Big, nullable=False),
    Column("problem", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("held_until", Big, nullable=False),
)
"""How each stands. `done_at`: when it last went well, 0: never; `due_at`: what it was due for then; `from_day` to
`to_day`, half-open: what was compared. `held_until`: until then `node` is at it, and no other."""


class Run(msgspec.Struct, kw_only=True):
    """How one comparison stands; moments in µs, 0: never."""

    name: str
    done_at: int = 0
    due_at: int = 0
    from_day: str = ""
    to_day: str = ""
    attempts: int = 0
    """Failures since it went well."""
    next_at: int = 0
    """Not tried again before."""
    problem: str = ""
    node: str = ""
    held_until: int = 0


class Writable(Protocol):
    """The history (sinks.history.sink.History): its database, in its writer's thread."""

    async def write(self, act: Callable[[Database], T]) -> T: ...


class ReconcileStore:
    """Reads and writes them. Methods raise HistoryUnavailable."""

    def __init__(self, history: Writable) -> None:
        self._history = history
        self._made = 0

    async def claim(self, name: str, node: str, due_us: int, now_us: int, held_us: int, *, forced: bool) -> bool:
        """Whether this node is to do it now; no other is then, for `held_us`. `forced`: also before its time."""

        def act(connection: Connection) -> bool:
            new = insert_new(runs, connection.dialect.name).values(**msgspec.structs.asdict(Run(name=name)))
            connection.execute(new)
            wanted = (runs.c.name == name) & (runs.c.held_until <= now_us)
            if not forced:
                wanted &= (runs.c.due_at < due_us) & (runs.c.next_at <= now_us)
            held = runs.update().where(wanted).values(node=node, held_until=now_us + held_us)
            return connection.execute(held.returning(runs.c.name)).first() is not None

        return await self._in_turn(act)

    async def keep(self, run: Run, found: Sequence[Cell]) -> None:
        """Put this in the place of what was known of the same days, and let the next have its turn."""

        def act(connection: Connection) -> None:
            days = (cells.c.day >= run.from_day) & (cells.c.day < run.to_day)
            connection.execute(delete(cells).where((cells.c.name == run.name) & days))
            if found:
                connection.execute(cells.insert(), [_row(run.name, each) for each in found])
            _put(connection, run)

        await self._in_turn(act)

    async def note(self, run: Run) -> None:
        """What became of a try that failed."""
        await self._in_turn(lambda connection: _put(connection, run))

    async def runs(self) -> dict[str, Run]:
        """By name, also those that are no longer configured."""
        return await self._in_turn(
            lambda connection: {row.name: Run(**row._mapping) for row in connection.execute(select(runs))}
        )

    async def cells(self, name: str, from_day: str, to_day: str) -> list[Cell]:
        """What is known of these days, half-open, in order."""
        query = select(cells).where(cells.c.name == name, cells.c.day >= from_day, cells.c.day < to_day)
        ordered = query.order_by(cells.c.day, cells.c.model, cells.c.key)
        return await self._in_turn(lambda connection: [_cell(row) for row in connection.execute(ordered)])

    async def _in_turn(self, act: Callable[[Connection], T]) -> T:
        def write(database: Database) -> T:
            database.prepare()
            with database.writing() as connection:
                if self._made != database.opened:
                    database.lock_schema(connection)
                    metadata.create_all(connection)
                done = act(connection)
            self._made = database.opened
            return done

        return await self._history.write(write)


def _put(connection: Connection, run: Run) -> None:
    values = msgspec.structs.asdict(run)
    connection.execute(runs.update().where(runs.c.name == values.pop("name")).values(**values))


def _row(name: str, cell: Cell) -> dict[str, Any]:
    ours, theirs = cell.ours or Ours(), cell.theirs or Figures()
    return {
        "name": name,
        "day": cell.day,
        "model": cell.model,
        "key": cell.key,
        "passed": int(cell.ours is not None),
        "told": int(cell.theirs is not None),
        **{f"our_{each}": getattr(ours, each) for each in _OURS},
        **{f"their_{each}": getattr(theirs, each) for each in _THEIRS},
    }


def _cell(row: Any) -> Cell:
    return Cell(
        row.day,
        row.model,
        row.key,
        Ours(**{name: getattr(row, f"our_{name}") for name in _OURS}) if row.passed else None,
        Figures(**{name: getattr(row, f"their_{name}") for name in _THEIRS}) if row.told else None,
    )
