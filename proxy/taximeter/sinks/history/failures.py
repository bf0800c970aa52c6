"""What can go wrong with a history database, in three kinds; and which of them a driver's error is."""

from __future__ import annotations

import sqlite3

from taximeter.core.errors import TaximeterError
from taximeter.sinks.unfit import Unfit


class HistoryUnavailable(TaximeterError):
    """The history database cannot be used now; the message names it. Whether a write took effect is unknown."""


class HistoryRefused(HistoryUnavailable, Unfit):
    """The database answered that it cannot hold these values; nothing was written. Trying again changes nothing."""


class SumTooLarge(HistoryRefused):
    """A sum in a query does not fit the database's integers (see `exact`)."""


_DATA = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, OverflowError)
_STATES = ("22", "23", "54")
"""Classes of SQLSTATE that are about the values: data exception, integrity violation, a limit (an index row's size)."""
_OUT_OF_RANGE = "22003"
_NO_PARTITION = "23514"
"""Of the classes above; where it names no constraint, not about the values: another node has dropped the month's
partition, which the next try makes again."""


def failure(error: Exception, name: str) -> HistoryUnavailable:
    """A driver's error as one of ours. `name`: of the database, without its password."""
    cause = getattr(error, "orig", None) or error
    message = f"History database {name}: {type(cause).__name__}: {cause}"
    state = getattr(cause, "sqlstate", None) or ""
    if state == _OUT_OF_RANGE or (isinstance(cause, sqlite3.OperationalError) and "integer overflow" in str(cause)):
        return SumTooLarge(message)
    if isinstance(cause, _DATA) or (state.startswith(_STATES) and not _lacks_partition(cause, state)):
        return HistoryRefused(message)
    return HistoryUnavailable(message)


def _lacks_partition(cause: object, state: str) -> bool:
    return state == _NO_PARTITION and not getattr(getattr(cause, "diag", None), "constraint_name", None)
