"""Which statement somebody asks for, and what the settings say where they do not."""

from __future__ import annotations

from typing import Annotated

import msgspec

from taximeter.billing.books import Tariff
from taximeter.billing.costing import Itemise
from taximeter.billing.period import BY, Asked, period
from taximeter.config import Settings
from taximeter.config.plans import plans, rates

MOST_CHUNKS = 2**53


class Closing(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which statement to close: a month, or from and to."""

    workspace: str
    month: str | None = None
    """Such as 2026-11."""
    from_: str | None = msgspec.field(default=None, name="from")
    to: str | None = None
    tz: str | None = None
    """IANA time zone; null: `billing.tz`."""
    by: list[str] = []
    """What lines are grouped by; empty: model and task."""
    currency: str | None = None
    """Null: `billing.currency`."""
    chunks: Annotated[int, msgspec.Meta(ge=0, le=MOST_CHUNKS)] = 0
    """How many chunks were indexed in the period, for plans with a price for them."""
    force: bool = False
    """Close it although calls of this node are not in history yet: they are left to the next statement."""


def tariff(settings: Settings, itemise: Itemise | None = None) -> Tariff:
    """Plans and rates of the settings in force."""
    return Tariff(plans(settings), rates(settings), itemise)


def question(asked: Closing, settings: Settings) -> Asked:
    """What is asked for, with what the settings say where it does not. Raises BadRequest."""
    return Asked(
        workspace=asked.workspace,
        period=period(asked.month, asked.from_, asked.to, asked.tz or settings.billing.tz),
        by=tuple(asked.by) or BY,
        currency=asked.currency or settings.billing.currency,
        chunks=asked.chunks,
    )
