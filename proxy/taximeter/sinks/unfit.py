"""The one word by which a sink tells records it cannot take from an outage."""

from __future__ import annotations

from taximeter.core.errors import TaximeterError


class Unfit(TaximeterError):
    """What is in these records cannot be taken, now or later; nothing of them was. Not raised where a server is away,
    refuses everybody or has no room: then they are kept and tried again."""


_OF_VALUES = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError, AssertionError)


_SERVERS = frozenset(("httpx2", "opentelemetry", "psycopg", "redis", "sqlalchemy"))


def is_outage(error: BaseException) -> bool:
    """Whether it is a server, the network or the disk that does not do: nothing a traceback would explain."""
    return isinstance(error, (TaximeterError, OSError)) or type(error).__module__.partition(".")[0] in _SERVERS


def is_unfit(error: BaseException) -> bool:
    """Whether it is the records that a sink failed at, and not its server: what it said itself, or a fault in how the
    values were handled. What libraries raise about servers (OSError, redis-py's, the drivers') is an outage."""
    return isinstance(error, (Unfit, *_OF_VALUES))
