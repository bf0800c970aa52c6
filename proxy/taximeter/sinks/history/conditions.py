"""Filters as SQL conditions with bound parameters. A query's shape is separate from its values, so that a statement
is built once for each shape: building one takes longer than running it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Table, Text, and_, bindparam, func, or_, select, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from taximeter.core.errors import BadRequest
from taximeter.core.record import Outcome
from taximeter.core.totals import FINE
from taximeter.sinks.history.schema import classes, events, series
from taximeter.sinks.query import SERIES, TAGS, Filters

OF_RECORDS = (*TAGS, "request_id")
OF_CLASSES = ("outcome", "kind")
OF_DETAILS = ("error_code",)
SINGLY = OF_RECORDS + OF_CLASSES + OF_DETAILS
"""Filters that only single records know."""

Shape = tuple[tuple[str, bool], ...]
"""The names filtered by, each with whether "" (carries none) is among the values. A stretch of values has an entry for
each of its ends: the name behind a BEHIND or a TO."""

BEHIND, TO = ">", "<"


def shape(filters: Filters) -> Shape:
    """Which filters are given."""
    given = [(name, "" in _values(filters, name)) for name in SERIES + SINGLY if getattr(filters, name) is not None]
    if filters.stretch is not None:
        name, after, upto = filters.stretch
        given += [(BEHIND + name, False)] if after is not None else []
        given += [(TO + name, after is None)] if upto is not None else []
    return tuple(given)


def in_stretch(asked: Shape) -> str | None:
    """The name of whose values a stretch is asked for."""
    return next((name[1:] for name, _ in asked if name[0] in (BEHIND, TO)), None)


def within_stretch(column: ColumnElement[Any], asked: Shape) -> ColumnElement[bool]:
    """Of a column with the values of that name, in which none is "" or null."""
    ends: list[ColumnElement[bool]] = []
    for name, none in asked:
        if name[0] == BEHIND:
            ends.append(column > bindparam("behind"))
        elif name[0] == TO:
            upto = column <= bindparam("upto")
            ends.append(or_(upto, column.is_(None)) if none else upto)
    return and_(true(), *ends)


def values(filters: Filters) -> dict[str, Any]:
    """The parameters of the conditions of this shape. Raises BadRequest on a NUL, which no text of PostgreSQL holds."""
    names = [name for name, _ in shape(filters) if name[0] not in (BEHIND, TO)]
    given: dict[str, Any] = {f"f_{name}": _values(filters, name) for name in names}
    if any("\0" in value for some in given.values() for value in some):
        raise BadRequest("A NUL cannot be part of a name.")
    if filters.stretch is not None:
        given |= {"behind": filters.stretch.after, "upto": filters.stretch.upto}
    return given


def _values(filters: Filters, name: str) -> list[str]:
    given = getattr(filters, name)
    return [given] if isinstance(given, str) else list(given)


def only_failures(filters: Filters) -> bool:
    """Whether every record that matches is of a call that `errors` counts: roll-ups then say in which hours to look."""
    failed = {each.value for each in Outcome if each not in FINE}
    given = filters.outcome is not None and failed.issuperset(_values(filters, "outcome"))
    return given or (filters.error_code is not None and "" not in _values(filters, "error_code"))


class _ErrorCode(FunctionElement[str]):
    """The error code in a record's `detail`; null or "" where it has none, as most have."""

    type = Text()
    inherit_cache = True


@compiles(_ErrorCode)
def _in_sqlite(element: _ErrorCode, compiler: Any, **kwargs: Any) -> str:
    detail = compiler.process(element.clauses, **kwargs)
    return f"CASE WHEN json_valid({detail}) THEN json_extract({detail}, '$.error_code') END"


@compiles(_ErrorCode, "postgresql")
def _in_postgresql(element: _ErrorCode, compiler: Any, **kwargs: Any) -> str:
    """As text, since a cast fails on what is no JSON. `detail` is written by `rows.to_row`: no blanks, and before this
    member there are only numbers and strings, in which a quotation mark is escaped."""
    detail = compiler.process(element.clauses, **kwargs)
    return f"split_part(split_part({detail}, '\"error_code\":\"', 2), '\"', 1)"


def on_names(numbered: Table, asked: Shape) -> ColumnElement[bool]:
    """Conditions on `usage_series` or `usage_summaries`, where "" is stored for none."""
    given = [_is_one_of(numbered.c[name], name) for name, _ in asked if name in SERIES]
    sliced = in_stretch(asked)
    if sliced in SERIES:
        given.append(within_stretch(numbered.c[sliced], asked))
    return and_(true(), *given)


def names_series(asked: Shape) -> bool:
    """Whether there is a condition on names of `usage_series`."""
    return any(name in SERIES for name, _ in asked) or in_stretch(asked) in SERIES


def on_records(asked: Shape) -> ColumnElement[bool]:
    """Every condition, on `usage_events`."""
    given: list[ColumnElement[bool]] = []
    for name, none in asked:
        if name in OF_RECORDS:
            chosen = _is_one_of(events.c[name], name)
            given.append(or_(chosen, events.c[name].is_(None)) if none else chosen)
    if any(name in OF_CLASSES for name, _ in asked):
        chosen = and_(*(_is_one_of(classes.c[name], name) for name, _ in asked if name in OF_CLASSES))
        given.append(events.c.class_no.in_(select(classes.c.class_no).where(chosen)))
    for name, none in asked:
        if name in OF_DETAILS:
            given.append(_is_one_of(func.coalesce(_ErrorCode(events.c.detail), ""), name))
            if not none:  # most records need not be looked into
                failed = select(classes.c.class_no).where(classes.c.outcome.not_in([each.value for each in FINE]))
                given.append(events.c.class_no.in_(failed))
    sliced = in_stretch(asked)
    if sliced in OF_RECORDS:
        given.append(within_stretch(events.c[sliced], asked))
    if names_series(asked):
        given.append(events.c.series_no.in_(select(series.c.series_no).where(on_names(series, asked))))
    return and_(true(), *given)


def _is_one_of(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    return column.in_(bindparam(f"f_{name}", expanding=True))
