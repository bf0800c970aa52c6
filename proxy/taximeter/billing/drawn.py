"""What was made of a period, as it is shown: a statement, its notes, a line of a list. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from taximeter.billing import making
from taximeter.billing.making import Part
from taximeter.billing.period import Asked
from taximeter.billing.rule import Plan, Rate
from taximeter.billing.statement import Line, Margin, Statement, Summary, Total
from taximeter.core.times import shown


def notes(asked: Asked, plans: Sequence[Plan], own: Sequence[Part], lines: Sequence[Line], owed: int) -> list[str]:
    """What a reader has to know. `owed`: how many calls of the period are billed later, and not settled."""
    found = []
    if not plans:
        found.append("No plan is about this workspace: there is no charge.")
    if asked.chunks and any(part.sums.get(making.CHUNKS) and part.charged.nusd is None for part in own):
        found.append("The plan has no price for chunks.")
    if any(line.left_out for line in lines):
        found.append("Some kinds of use have no price in the plan beside those that do: they are charged nothing.")
    if owed:
        found.append(
            f"{'One call' if owed == 1 else f'{owed:,} calls'} of this period will be billed later (batches and the "
            "like): what that costs is not known yet, and will be a correction on a later statement."
        )
    return found


def statement(
    asked: Asked, by: tuple[str, ...], rate: Rate, lines: list[Line], own: Sequence[Part], noted: list[str]
) -> Statement:
    """Not closed yet."""
    return Statement(
        workspace=asked.workspace,
        from_=shown(asked.period.from_us) or "",
        to=shown(asked.period.to_us) or "",
        tz=asked.period.tz,
        currency=rate.code,
        decimals=rate.decimals,
        by=list(by),
        plans=list(dict.fromkeys(part.plan.name for part in own if part.plan is not None)),
        lines=lines,
        total=making.total(lines),
        notes=noted,
    )


def margin(workspace: str, total: Total) -> Margin:
    """Of a workspace, from the total of its lines."""
    return Margin(
        workspace=workspace,
        requests=total.quantities.requests,
        unknown_requests=total.unknown_requests,
        unpriced_requests=total.unpriced_requests or 0,
        uncharged_requests=total.uncharged_requests,
        cost_usd=None if total.cost_usd is UNSET else total.cost_usd,
        charge_usd=total.charge_usd,
        margin_usd=None if total.margin_usd is UNSET else total.margin_usd,
    )


def summary(closed: Statement) -> Summary:
    """Of a closed statement, for a list."""
    amounts = {name: getattr(closed.total, name) for name in _AMOUNTS}
    return Summary(
        number=closed.number or 0,
        workspace=closed.workspace,
        from_=closed.from_,
        to=closed.to,
        tz=closed.tz,
        currency=closed.currency,
        closed_at=closed.closed_at or "",
        closed_by=closed.closed_by or "",
        **amounts,
    )


_AMOUNTS = ("cost_usd", "charge_usd", "margin_usd", "cost", "charge", "margin")
