"""What budgets are charged for calls of which it is not known what they used: sums by period, and the calls.

Queries only.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, select

from taximeter.core.record import Outcome, Record
from taximeter.sinks.history.read import listing
from taximeter.sinks.history.schema import charges, events, total


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


def records(connection: Connection, workspace: str, from_us: int) -> list[Record]:
    """The records of a workspace that say what budgets are charged, of calls that ended since then. Where a record is
    kept no longer, what is known of it: key, task and amounts, its tokens taken for input and for output."""
    mine = (charges.c.workspace == workspace) & (charges.c.ended_at >= from_us)
    found = list(listing.of_ids(connection, select(charges.c.id).where(mine)))
    missing = select(charges).where(mine, charges.c.id.not_in(select(events.c.id))).order_by(charges.c.id)
    return found + [_remembered(row) for row in connection.execute(missing)]


def _remembered(row: Row[*tuple[Any, ...]]) -> Record:
    return Record(
        request_id=row.request_id,
        attempt=row.attempt,
        started_at=row.ended_at,
        ended_at=row.ended_at,
        workspace=row.workspace,
        key_id=row.key_id or None,
        task=row.task or None,
        upstream="",
        provider="",
        api="",
        outcome=Outcome.TIMEOUT,
        charged_tokens=row.charged_tokens,
        charged_cost_nusd=row.charged_cost_nusd,
        charged_input_tokens=row.charged_tokens,
        charged_output_tokens=row.charged_tokens,
    )


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
