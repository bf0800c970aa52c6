"""Budgets: what is stored of one, which calls it is about, and the period it is about now. Pure.

Shared by the gateway (reserves), the control plane (keeps them) and the counters (add up what is spent).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from taximeter.core.errors import BadRequest
from taximeter.core.tags import is_valid
from taximeter.core.union import union

Unit = Literal["usd", "tokens"]
Period = Literal["day", "month", "total"]
Mode = Literal["soft", "hard"]

MOST = 2**53
"""Largest limit: what the reserving script counts exactly ($9 million in nano-USD)."""

CHARGED = ("charged_tokens", "charged_cost_nusd")
"""Counters of what budgets are charged for calls of which it is not known what they used, in hashes of total, month and
day beside those of core.totals."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_is_id = re.compile(r"bud_[0-9a-f]{12}").fullmatch


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much a workspace, or a key or a task of it, may use in a period. It is ended, never changed."""

    id: str
    workspace: str
    key_id: str = ""
    task: str = ""
    """At most one of key and task; neither: the whole workspace."""
    unit: Unit = "usd"
    period: Period = "month"
    """UTC days and calendar months; a call belongs to the one in which it ends."""
    limit: int
    """nano-USD or tokens."""
    mode: Mode = "hard"
    """soft: told when it is spent; hard: calls beyond it are refused."""
    created_at: int = 0
    """µs since epoch."""
    ended_at: int = 0
    """µs since epoch; 0: in force. An ended one stays in the file, so that no other copy brings it back."""

    @property
    def scope(self) -> str:
        """`key:<id>`, `task:<name>`, or "" for the whole workspace."""
        if self.key_id:
            return f"key:{self.key_id}"
        return f"task:{self.task}" if self.task else ""

    @property
    def field(self) -> str:
        """The counter it is measured by (core.totals.FIELDS)."""
        return "cost_nusd" if self.unit == "usd" else "total_tokens"

    @property
    def charged_field(self) -> str:
        """The counter, beside it, of what is charged because it is not known (CHARGED)."""
        return "charged_cost_nusd" if self.unit == "usd" else "charged_tokens"


def checked(budget: Budget) -> Budget:
    """The budget, if it can be meant. Raises BadRequest."""
    for name in ("workspace", "key_id", "task"):
        value = getattr(budget, name)
        if (value or name == "workspace") and not is_valid(value):
            raise BadRequest(
                f"{name} {value[:128]!r}: 1-128 characters of letters, digits and . _ : @ - are allowed.", param=name
            )
    if budget.key_id and budget.task:
        raise BadRequest("A budget is for a key or for a task, not both.", param="task")
    if not 0 < budget.limit <= MOST:
        raise BadRequest("The limit must be more than 0, and at most 9,007,199 USD or 2^53 tokens.", param="limit")
    return budget


def is_stored(budget: Budget) -> bool:
    """Whether this is a budget another node may have made."""
    try:
        return _is_id(budget.id) is not None and checked(budget) is budget
    except BadRequest:
        return False


def period_name(period: Period, now_us: int) -> str:
    """`total`, `month:2026-11` or `day:2026-11-22`, as the counters name it."""
    if period == "total":
        return "total"
    at = _EPOCH + timedelta(microseconds=now_us)
    return f"month:{at:%Y-%m}" if period == "month" else f"day:{at:%Y-%m-%d}"


def resets_at_us(period: Period, now_us: int) -> int | None:
    """When the period after this one begins; None: never."""
    if period == "total":
        return None
    at = (_EPOCH + timedelta(microseconds=now_us)).replace(hour=0, minute=0, second=0, microsecond=0)
    after = at + timedelta(days=1) if period == "day" else (at.replace(day=1) + timedelta(days=32)).replace(day=1)
    return (after - _EPOCH) // timedelta(microseconds=1)


class Budgets:
    """The budgets in force, by workspace: a call of a workspace without any costs one look-up in `workspaces`."""

    def __init__(self, budgets: Iterable[Budget] = ()) -> None:
        self.workspaces: dict[str, tuple[Budget, ...]] = {}
        for budget in budgets:
            if not budget.ended_at:
                self.workspaces[budget.workspace] = (*self.workspaces.get(budget.workspace, ()), budget)

    def of(self, workspace: str, key_id: str | None, task: str | None) -> tuple[Budget, ...]:
        """Those a call counts against."""
        return tuple(
            budget
            for budget in self.workspaces.get(workspace, ())
            if budget.key_id in ("", key_id) and budget.task in ("", task)
        )

    def scopes(self, workspace: str) -> frozenset[str]:
        """The keys and tasks of a workspace whose use has to be counted apart."""
        return frozenset(budget.scope for budget in self.workspaces.get(workspace, ()) if budget.scope)


def merge(*copies: Iterable[Budget]) -> list[Budget]:
    """Several copies of the stored budgets as one; see `union`."""
    return union(copies, "ended_at")
