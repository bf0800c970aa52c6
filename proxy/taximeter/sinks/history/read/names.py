"""The names that are in history: those a picker offers, and those a search finds. Queries only, each bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select, true

from taximeter.sinks.history.schema import TAG_LEVELS, events, series
from taximeter.sinks.query import SERIES, TAGS, Match

MOST = 200
"""Values of one name that are offered."""
FOUND = 20
"""Values of one name that a search finds."""


def offered(connection: Connection, workspace: str | None) -> dict[str, list[str]]:
    """Of each of SERIES the values there are, sorted, "" where calls carry none; MOST + 1 of them: there are more.

    `workspace`: only of its calls.
    """
    mine = true() if workspace is None else series.c.workspace == workspace
    found = {}
    for name in SERIES:
        value = _by_code_point(connection, series.c[name])
        found[name] = list(
            connection.execute(select(value).where(mine).distinct().order_by(value).limit(MOST + 1)).scalars()
        )
    return found


def matching(connection: Connection, text: str, workspace: str | None) -> list[Match]:
    """The names that hold this text, in either case; FOUND of each kind at most."""
    found = [*_among_series(connection, text, workspace), *_among_tags(connection, text, workspace)]
    return list(dict.fromkeys(found))


def _among_series(connection: Connection, text: str, workspace: str | None) -> Iterator[Match]:
    for name in SERIES:
        holds = _holds(series.c[name], text)
        if workspace is not None:
            holds = and_(series.c.workspace == workspace, holds)
        value = _by_code_point(connection, series.c[name])
        query = select(value).where(holds).distinct().order_by(value).limit(FOUND)
        yield from (Match(name, value, None) for value in connection.execute(query).scalars())


def _among_tags(connection: Connection, text: str, workspace: str | None) -> Iterator[Match]:
    """The very name by the index of the records, also of those that ended just now; then what the roll-ups know."""
    known = TAG_LEVELS[-1].c
    for tag in TAGS:
        exact = (
            select(series.c.workspace)
            .join(events, events.c.series_no == series.c.series_no)
            .where(events.c[tag] == text)
            .distinct()
            .limit(FOUND)
        )
        for owner in sorted(connection.execute(exact).scalars()):
            if workspace in (None, owner):
                yield Match(tag, text, owner)
        holds = and_(known.tag == tag, _holds(known.value, text))
        if workspace is not None:
            holds = and_(series.c.workspace == workspace, holds)
        value, whose = (_by_code_point(connection, column) for column in (known.value, series.c.workspace))
        of = select(value, whose).join(series, series.c.series_no == known.series_no)
        query = of.where(holds).distinct().order_by(value, whose).limit(FOUND)
        yield from (Match(tag, value, owner) for value, owner in connection.execute(query))


def _by_code_point(connection: Connection, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The column, in the order in which Python sorts: a PostgreSQL has an order of its own, and which names the first
    are would depend on the language it was made with."""
    return column.collate("C" if connection.dialect.name == "postgresql" else "BINARY").label(None)


def _holds(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    return func.lower(column).contains(text.lower(), autoescape=True)
