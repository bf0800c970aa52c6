"""What budgets are charged for calls of which it is not known what they used: sums by period, and the calls.

Queries only.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice

import msgspec
from sqlalchemy import Connection, func, select

from taximeter.sinks.history.schema import DAY_S, US, charges, total

Amounts = tuple[int, int]
"""Tokens, nano-USD."""


class Charge(msgspec.Struct, kw_only=True):
    """A call that is charged."""

    workspace: str
    key_id: str | None
    task: str | None
    request_id: str
    attempt: int
    ended_at: int
    """µs since epoch."""
    tokens: int
    cost_nusd: int


def by_period(
    connection: Connection, workspace: str, scopes: Sequence[str], days_from_s: int
) -> dict[str, dict[str, Amounts]]:
    """Of the workspace (as "") and each scope (`key:<id>`, `task:<name>`): `total`, `month:2026-11`, `day:2026-11-22`,
    days from `days_from_s` on -> what is charged. What is 0 is left out."""
    of = charges.c
    day_s = (of.ended_at // (DAY_S * US) * DAY_S).label("day_s")
    query = (
        select(of.key_id, of.task, day_s, total(of.charged_tokens), total(of.charged_cost_nusd))
        .where(of.workspace == workspace)
        .group_by("key_id", "task", "day_s")  # by name: PostgreSQL takes two equal expressions for two
    )
    found: dict[str, dict[str, Amounts]] = {}
    for key_id, task, start_s, tokens, cost_nusd in connection.execute(query):
        at = datetime.fromtimestamp(start_s, UTC)
        periods = ["total", f"month:{at:%Y-%m}", *([f"day:{at:%Y-%m-%d}"] if start_s >= days_from_s else [])]
        for scope in ("", *(name for name in (f"key:{key_id}", f"task:{task}") if name in scopes)):
            sums = found.setdefault(scope, {})
            for period in periods:
                before = sums.get(period, (0, 0))
                sums[period] = before[0] + tokens, before[1] + cost_nusd
    return {scope: {at: sums for at, sums in each.items() if any(sums)} for scope, each in found.items()}


def listed(connection: Connection, workspace: str | None, request_id: str | None, limit: int) -> list[Charge]:
    """Calls that are charged now, the latest first."""
    of = charges.c
    tokens, cost_nusd = func.sum(of.charged_tokens), func.sum(of.charged_cost_nusd)
    names = (of.workspace, of.key_id, of.task, of.request_id, of.attempt)
    query = (
        select(*names, func.max(of.ended_at), total(of.charged_tokens), total(of.charged_cost_nusd))
        .group_by(*names)
        .having((tokens != 0) | (cost_nusd != 0))
        .order_by(func.max(of.ended_at).desc(), of.request_id, of.attempt)
    )
    if workspace is not None:
        query = query.where(of.workspace == workspace)
    if request_id is not None:
        query = query.where(of.request_id == request_id)
    return [
        Charge(
            workspace=row[0],
            key_id=row[1] or None,
            task=row[2] or None,
            request_id=row[3],
            attempt=row[4],
            ended_at=row[5],
            tokens=row[6],
            cost_nusd=row[7],
        )
        for row in islice(connection.execute(query.limit(limit)), limit)
    ]
