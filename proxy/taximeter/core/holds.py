"""How a record says that its call holds a part of hard budgets and of rates, and under which name it does. Pure."""

from __future__ import annotations

from taximeter.core.record import Record

BUDGETS = "budgets"
"""Member of `tags` of a call that reserved a part of hard budgets: their ids, with commas."""
RATES = "rates"
"""Likewise of a call that rates of ours are about: their names."""
LIMITED = frozenset((BUDGETS, RATES))
"""A call with one of these asks before it is sent, and is let go at its end."""


def reservation_of(call: Record) -> str:
    """The name under which a call holds a part of its budgets."""
    return f"{call.request_id}#{call.attempt}"
