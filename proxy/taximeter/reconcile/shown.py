"""A comparison's standing as the API, the command and the page show it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taximeter.reconcile import responses
from taximeter.reconcile.responses import ReconcileDetail, ReconcileInfo
from taximeter.reconcile.rule import Cell
from taximeter.reconcile.service import Standing


def info(standing: Standing) -> ReconcileInfo:
    """How it stands."""
    run, settings = standing.run, standing.settings
    figure, ratio = responses.furthest(standing.compared, settings.figures)
    return ReconcileInfo(
        name=settings.name,
        kind=settings.kind,
        state=standing.state if run.done_at else None,
        from_=run.from_day or None,
        to=run.to_day or None,
        compared_at=responses.moment(run.done_at),
        tolerance_ratio=settings.tolerance_percent / 100,
        difference_ratio=ratio,
        furthest=figure,
        figures=[responses.figure_info(each) for each in standing.compared],
        unknown_requests=standing.unknown_requests,
        unpriced_requests=standing.unpriced_requests,
        problem=run.problem or None,
        attempts=run.attempts,
        next_try_at=responses.moment(run.next_at),
    )


def detail(standing: Standing, found: Sequence[Cell]) -> ReconcileDetail:
    """The same with every row."""
    told = msgspec.structs.asdict(info(standing))
    return ReconcileDetail(**told, rows=responses.rows(found))
