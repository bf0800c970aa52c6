"""How comparisons are shown. Pure; the CLI uses it too. Money is in USD, tokens and calls are whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from taximeter.core.times import shown
from taximeter.core.views import usd
from taximeter.reconcile import rule
from taximeter.reconcile.rule import Cell, Compared, Figures, Ours, State


class FigureInfo(msgspec.Struct, kw_only=True):
    """One figure of all days, models and keys that were compared."""

    figure: str
    """input_tokens | cached_input_tokens | cache_write_input_tokens | output_tokens | cost_usd"""
    ours: Decimal
    theirs: Decimal
    difference: Decimal
    """ours - theirs"""
    difference_ratio: float
    """How far apart: the differences of all models and keys, whichever side has more, as a part of the larger sides."""
    coverage_ratio: float | None
    """The part of what they billed (credits apart) that passed here; null: they billed nothing."""
    never_passed: Decimal
    """What they have more than we, model by model and key by key."""
    not_known: Decimal
    """What they say of places of which nothing is known here: in no other figure."""


class SideInfo(msgspec.Struct, kw_only=True):
    """What one side says; null: not told, or not known."""

    input_tokens: int | None
    cached_input_tokens: int | None
    cache_write_input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    requests: int | None


class OurSideInfo(SideInfo, kw_only=True):
    unknown_requests: int
    """Calls that may have been billed and of whose use nothing is known."""
    unpriced_requests: int
    own_count_tokens: int
    """Of the tokens: counted or estimated here, none having been reported."""


class ReconciledRow(msgspec.Struct, kw_only=True):
    """One day, model and key."""

    day: str
    model: str | None
    """null: models are not told apart."""
    key: str | None
    ours: OurSideInfo | None
    """null: no call of this passed here."""
    theirs: SideInfo | None
    """null: they say nothing of this."""


class ReconcileInfo(msgspec.Struct, kw_only=True):
    """How one comparison of the settings stands."""

    name: str
    kind: str
    state: State | None
    """`agrees` within the tolerance, `differs`, `nothing`: there was nothing to compare, or nothing is known here of
    all that they tell; null: never compared."""
    from_: str | None = msgspec.field(name="from")
    to: str | None
    """The days that were compared, half-open."""
    compared_at: str | None
    tolerance_ratio: float
    difference_ratio: float | None
    """Of the figure that is furthest apart, of those judged."""
    furthest: str | None
    """Which that is."""
    figures: list[FigureInfo]
    unknown_requests: int
    """Calls of ours of which nothing is known, in these days."""
    unpriced_requests: int
    problem: str | None
    """Why it could not be compared since; null: it went well."""
    attempts: int
    next_try_at: str | None


class ReconcileList(msgspec.Struct):
    data: list[ReconcileInfo]


class ReconcileDetail(ReconcileInfo, kw_only=True):
    rows: list[ReconciledRow]
    """By day, model and key."""


def named(figure: str) -> str:
    """A figure's name with the unit it is shown in."""
    return "cost_usd" if figure == "cost_nusd" else figure


def figure_info(each: Compared) -> FigureInfo:
    def amount(value: int) -> Decimal:
        return usd(value) if each.figure == "cost_nusd" else Decimal(value)

    return FigureInfo(
        figure=named(each.figure),
        ours=amount(each.ours),
        theirs=amount(each.theirs),
        difference=amount(each.difference),
        difference_ratio=each.ratio,
        coverage_ratio=each.coverage,
        never_passed=amount(each.never_passed),
        not_known=amount(each.not_known),
    )


def row(cell: Cell) -> ReconciledRow:
    return ReconciledRow(
        day=cell.day,
        model=cell.model or None,
        key=cell.key or None,
        ours=None if cell.ours is None else _ours(cell.ours),
        theirs=None if cell.theirs is None else SideInfo(**_side(cell.theirs)),
    )


def rows(found: Sequence[Cell]) -> list[ReconciledRow]:
    return [row(each) for each in found]


def _ours(side: Ours) -> OurSideInfo:
    return OurSideInfo(
        **_side(side),
        unknown_requests=side.unknown_requests,
        unpriced_requests=side.unpriced_requests,
        own_count_tokens=side.own_count_tokens,
    )


def _side(side: Figures) -> dict[str, Any]:
    told: dict[str, Any] = {name: getattr(side, name) for name in SideInfo.__struct_fields__ if name != "cost_usd"}
    return told | {"cost_usd": None if side.cost_nusd is None else usd(side.cost_nusd)}


def moment(us: int) -> str | None:
    return shown(us or None)


def furthest(compared: Sequence[Compared], judged: Sequence[str]) -> tuple[str | None, float | None]:
    """(figure, how far apart) of the figure that is furthest apart."""
    worst = rule.worst(compared, judged)
    return (None, None) if worst is None else (named(worst.figure), worst.ratio)
