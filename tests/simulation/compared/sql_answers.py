"""Every question that a history is asked, with arguments drawn from a seed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from ledger import T0
from simulation.compared.sql_steps import DAY_US, MODELS, MONTHS_US, NODES, SPAN_US, Side
from taximeter.billing.books import Tariff
from taximeter.billing.period import Asked, Period
from taximeter.budgets.tally import EACH, Tally
from taximeter.core.audit import AuditFilters
from taximeter.sinks.history.read.evidence import HistoryEvidence
from taximeter.sinks.query import GROUPS, SORTS, Filters, Sort, Window

Question = Callable[[Side], Awaitable[Any]]
WINDOWS: tuple[Window | None, ...] = (None, "hour", "day", "month")
ZONES = ("UTC", "Asia/Kathmandu", "America/New_York")
TALLIES = (
    Tally("usd", "monthly", "UTC", ()),
    Tally("tokens", "daily", "America/New_York", (("track", EACH),)),
    Tally("requests", "total", "UTC", (("model", "M1"),)),
)


def questions(rng: Random) -> dict[str, Question]:
    """One of each kind."""
    filters, by = _filters(rng), tuple(rng.sample(GROUPS, rng.randint(0, 3)))
    window, zone, sort = rng.choice(WINDOWS), rng.choice(ZONES), Sort(rng.choice(SORTS), rng.random() < 0.5)
    workspace, node, text = rng.choice(("acme", "beta")), rng.choice(NODES), rng.choice(("m", "modèle", "%", "M_", "t"))
    first_us = T0 + rng.randrange(SPAN_US)
    marks = [first_us, first_us + DAY_US, first_us + 9 * DAY_US]
    period = Period(from_us=marks[0] // DAY_US * DAY_US, to_us=marks[2] // DAY_US * DAY_US)
    asked = Asked(workspace=workspace, period=period, by=rng.choice((("model", "task"), ("track",), ("provider",))))
    request, one = f"r{rng.randint(1, 60)}", rng.choice(GROUPS)

    async def read(side: Side, act: Callable[[], Any]) -> Any:
        return await side.any.read(act)

    return {
        "usage": lambda side: side.any.usage(filters, by, window, zone),
        "by upstream": lambda side: side.any.by_upstream(filters, by, "day"),
        "ranked": lambda side: side.any.ranked(filters, one, 2, "day", zone),
        "stretches": lambda side: side.any.stretches(filters, [(by, marks), ((), [0, first_us])]),
        "latency": lambda side: side.any.latency(filters, one, marks),
        "quantities": lambda side: side.any.quantities(filters, by),
        "unpriced": lambda side: side.any.unpriced(workspace, marks[0], marks[2]),
        "since": lambda side: _both(side.any.apart_since_us(), side.any.count(filters)),
        "record": lambda side: side.any.record(request),
        "request": lambda side: _pages(lambda page: side.any.request(request, 2, page)),
        "arrived": lambda side: side.any.arrived([request, "r1", "none"]),
        "events": lambda side: _pages(lambda page: side.any.events(filters, 7, page)),
        "listing": lambda side: _listing(side, filters, sort),
        "export": lambda side: _export(side, filters),
        "names": lambda side: side.any.names(None if text == "m" else workspace),
        "search": lambda side: side.any.search(text, None),
        "track": lambda side: side.any.track(workspace, "t1"),
        "workspaces": lambda side: side.any.workspaces(),
        "ledger": lambda side: side.any.ledger(
            workspace, days_from_us=MONTHS_US[0], hours_from_us=first_us, tracks_from_us=first_us,
            tallies=TALLIES, now_us=marks[2],
        ),
        "tallied": lambda side: side.any.tallied(workspace, TALLIES, marks[1]),
        "standing": lambda side: side.any.standing(workspace, {"n0-0": 5, "n1-1": 900, "gone": 1}),
        "charges": lambda side: side.any.charges(workspace),
        "unsettled": lambda side: side.nodes[node].unsettled(1_000),
        "owed": lambda side: side.any.owed(None, ("outstanding", "ended", "expired"), 100),
        "owed standing": lambda side: side.any.owed_standing(),
        "owed of a range": lambda side: read(
            side, lambda: side.any.reader.owed(workspace, ("outstanding",), marks[0], marks[2])
        ),
        "evidence": lambda side: side.any.evidence(_evidence),
        "audit": lambda side: _pages(lambda page: side.any.audit(AuditFilters(from_us=T0), 3, page)),
        "statement": lambda side: read(side, lambda: side.books.preview(asked, Tariff())),
        "closed statements": lambda side: read(side, lambda: side.books.standing(workspace)),
        "margins": lambda side: read(side, lambda: side.books.margins(period, Tariff())),
        "journals": lambda side: side.any.journals(["n0-0", "n0-1", "n1-0", "n1-1", "none"]),
    }  # fmt: skip


def _filters(rng: Random) -> Filters:
    given: dict[str, Any] = {}
    for name, values in (
        ("workspace", ("acme", "beta", "")), ("model", (*MODELS, "unknown")), ("track", ("t1", "", "T1")),
        ("task", ("query", "")), ("operation", ("llm", "rerank")), ("outcome", ("ok", "timeout")),
        ("error_code", ("upstream_timeout",)), ("kind", ("usage", "correction")), ("end_user", ("ann", "")),
    ):  # fmt: skip
        if rng.random() < 0.15:
            given[name] = rng.choice(values) if rng.random() < 0.6 else list(values[:2])
    if rng.random() < 0.6:
        start_us = T0 + rng.randrange(SPAN_US)
        given["from_us"] = start_us if rng.random() < 0.5 else start_us // DAY_US * DAY_US
        if rng.random() < 0.7:
            given["to_us"] = given["from_us"] + rng.randrange(20 * DAY_US)
    return Filters(**given)


async def _both(*asked: Awaitable[Any]) -> list[Any]:
    return [await each for each in asked]


async def _pages(ask: Callable[[str | None], Awaitable[tuple[list[Any], str | None]]]) -> list[list[Any]]:
    """Page by page: cursors hold numbers that are each database's own."""
    found, page = [], None
    while True:
        records, page = await ask(page)
        found.append(records)
        if page is None:
            return found


async def _listing(side: Side, filters: Filters, sort: Sort) -> list[Any]:
    """To the end, and one page back."""
    found = [await side.any.listing(filters, 5, None, sort)]
    while (after := found[-1].after) is not None:
        found.append(await side.any.listing(filters, 5, after, sort))
    if (before := found[-1].before) is not None:
        found.append(await side.any.listing(filters, 5, before, sort))
    return [(each.records, each.before is None, each.after is None) for each in found]


async def _export(side: Side, filters: Filters) -> list[Any]:
    return [records async for records in side.any.export(filters, 10)]


def _evidence(source: HistoryEvidence) -> list[Any]:
    roots = source.roots()
    found: list[Any] = [roots, source.ends(), source.history]
    for number in (*range(1, len(roots) + 1), None):
        found += [(held.journal, held.statement, source.entries(held)) for held in source.segments(number)]
    return [*found, [list(source.records(journal, 0, 10_000)) for journal in ("n0-0", "n1-1")]]
