"""The page of how calls went: requests, errors and refusals, time to the end and to the first token, what failed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from litestar import Controller, Response, get
from litestar.di import Provide
from msgspec.structs import replace

from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.dashboard import rates
from taximeter.control.dashboard.contexts import Failure, PerformancePage
from taximeter.control.dashboard.pages import DIMENSIONS, By, Sort, Viewed, one_of, page_view
from taximeter.control.dashboard.showing import ERRORS, show
from taximeter.control.dashboard.sorting import sorting
from taximeter.control.dashboard.view import FAILED, View
from taximeter.control.door.access import anyone_known
from taximeter.control.services.querying import ApiRequest, up_to_date
from taximeter.core.record import Outcome, Record
from taximeter.sinks.query import NEWEST

LOOKED_AT = 1_000
"""The newest failures, and the newest refusals, that are told apart by code: each is read."""


class PerformancePages(Controller):
    """How calls went, for people."""

    tags = ("dashboard",)
    guards = (anyone_known, only_known_parameters)
    dependencies = {"view": Provide(page_view)}  # noqa: RUF012 - Litestar reads it as a class attribute
    exception_handlers = ERRORS

    @get("/dashboard/performance", summary="Latency, errors and refusals over time", media_type="text/html")
    async def page(
        self, services: Given, request: ApiRequest, view: Viewed, by: By = None, sort: Sort = None
    ) -> Response[str]:
        by = one_of(by, DIMENSIONS, "model")
        order = sorting(sort, rates.COLUMNS, "-calls")
        complete, lag_s = await up_to_date(services)
        failed = replace(view.filters, outcome=list(FAILED), kind="usage")
        refused = replace(view.filters, outcome=[Outcome.REFUSED.value], kind="usage")
        shown, failures, refusals, apart_us = await asyncio.gather(
            rates.performance(services.history, view, by, order),
            # Each by itself: a client that is refused in a loop hides no failure.
            services.history.listing(failed, LOOKED_AT, None, NEWEST),
            services.history.listing(refused, LOOKED_AT, None, NEWEST),
            services.history.apart_since_us(),
        )
        page = PerformancePage(
            view=view,
            dimensions=DIMENSIONS,
            by=by,
            sort=order,
            shown=shown,
            failures=told_apart([*failures.records, *refusals.records], view),
            looked_at=LOOKED_AT if failures.after or refusals.after else 0,
            apart_since_us=apart_us if apart_us > view.from_us else 0,
            complete=complete,
            lag_seconds=lag_s,
        )
        return show(request, page)


def told_apart(records: Iterable[Record], view: View) -> list[Failure]:
    """How often each way of failing, then of being refused, the commonest first."""
    found: dict[tuple[str, str | None], Counter[int | None]] = {}
    for each in records:
        found.setdefault((each.outcome.value, each.error_code), Counter())[each.status] += 1
    return [
        Failure(
            outcome=outcome,
            error_code=code,
            statuses=sorted(status for status in statuses if status is not None),
            count=statuses.total(),
            href=view.records(outcome=outcome, error_code=code or ""),
        )
        for (outcome, code), statuses in sorted(found.items(), key=_first)
    ]


def _first(found: tuple[tuple[str, str | None], Counter[int | None]]) -> tuple[bool, int, str]:
    (outcome, code), statuses = found
    return outcome == Outcome.REFUSED.value, -statuses.total(), f"{outcome} {code}"
