"""Sums of any size, for the rare query whose result does not fit 64 bits: the databases' own sums fail there.

A query runs as ever, and once more, slower, where the database says that a sum overflows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import ColumnElement, Dialect, Label, Numeric, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from taximeter.sinks.history.failures import SumTooLarge

P = ParamSpec("P")
T = TypeVar("T")

_asked: ContextVar[bool] = ContextVar("exact sums", default=False)


def wanted() -> bool:
    """Whether sums are to be exact whatever their size: part of what a statement is built for."""
    return _asked.get()


def of_any_size(ask: Callable[P, T]) -> Callable[P, T]:
    """Ask again with exact sums where the database's own overflow. `ask` may have had no effect by then."""

    @wraps(ask)
    def asking(*args: P.args, **named: P.kwargs) -> T:
        try:
            return ask(*args, **named)
        except SumTooLarge:
            with _exact():
                return ask(*args, **named)

    return asking


def exact_sum(column: ColumnElement[Any]) -> Label[int]:
    """The column's sum under its own name, as a Python integer of any size."""
    return _Sum(column).label(column.key)


class AnySize(TypeDecorator[int]):
    """A whole number that a database returns as text (SQLite) or as a decimal (PostgreSQL)."""

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else Numeric())

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


class _Sum(FunctionElement[int]):
    type = AnySize()
    inherit_cache = True


@compiles(_Sum, "postgresql")
def _by_postgresql(element: _Sum, compiler: SQLCompiler, **more: Any) -> str:
    """PostgreSQL's own sum of whole numbers is a decimal of any size."""
    return f"sum({compiler.process(element.clauses, **more)})"


@compiles(_Sum, "sqlite")
def _by_sqlite(element: _Sum, compiler: SQLCompiler, **more: Any) -> str:
    return f"exact_sum({compiler.process(element.clauses, **more)})"


class ExactSum:
    """SQLite's aggregate `exact_sum`: Python adds, so nothing overflows."""

    def __init__(self) -> None:
        self._sum: int | None = None

    def step(self, value: Any) -> None:
        if value is not None:
            self._sum = (self._sum or 0) + int(value)

    def finalize(self) -> Any:
        return None if self._sum is None else str(self._sum)


@contextmanager
def _exact() -> Iterator[None]:
    token = _asked.set(True)
    try:
        yield
    finally:
        _asked.reset(token)
