"""What is worth an alert, of a real history and of health as delivery tells it."""

import msgspec
import pytest

from control_plane import NOON_US, control, record, start
from taximeter.alerts.conditions import Sources, budget
from taximeter.breaker.rule import Place, Trip, trip_id
from taximeter.budgets.rule import Budget
from taximeter.budgets.thresholds import reached
from taximeter.config.settings import AlertSettings
from taximeter.sinks.health import DeliveryHealth, SinkHealth

__all__ = ["control", "start"]

FINE = SinkHealth(lag_records=0, lag_seconds=0.0, errors=0, duplicates_skipped=0, failing=None)


def health(**sinks):
    return DeliveryHealth(
        sinks={"history": FINE, **sinks}, in_flight=0, journal_files=1, journal_bytes=1, lag_seconds=0.0,
        journal_healthy=True, journal_errors=0, records_lost=0, journal_repairs=0, unreadable_lines=0, settled=0,
        halted={}, writers=[],
    )  # fmt: skip


@pytest.fixture
def sources(control):
    """`await sources(health(…), trips=[…])`: the titles of what is so."""

    async def find(state=None, *, trips=(), dead=0, history=None, **alert):
        found = Sources(
            node="n1", trips=lambda: list(trips), history=history or control.history,
            health=lambda: state or health(), dead_letters=lambda: dead, now_us=lambda: NOON_US + 1_000_000,
        )  # fmt: skip
        return await found.of(AlertSettings(name="ops", webhook=True, **alert))

    return find


async def test_where_all_is_well_nothing_is_told(sources, control):
    await control.add(record(1))
    assert await sources() == []


def at(percent, **more):
    made = Budget(**{"id": "bud_1", "workspace": "acme", "unit": "tokens", "period": "month", "limit": 100, **more})
    allowance = made.sole
    assert allowance is not None
    return next(reached(allowance, percent, 5, [percent], NOON_US))


def test_a_threshold_of_a_budget_is_told_with_what_it_means():
    found = budget(at(80))
    assert found.title == "80 % of the budget of workspace 'acme' is used"
    assert found.subject.startswith("bud_1:") and found.subject.endswith(":80") and found.once and not found.ends
    assert "80 tokens of 100 tokens are spent, 5 tokens are charged without being known" in found.text
    assert "Calls beyond it are refused." in found.text
    soft = budget(at(50, key_id="k1", mode="soft", period="total"))
    assert soft.title == "50 % of the budget of key 'k1' of workspace 'acme' is used" and "calls go on" in soft.text


async def test_a_sink_that_is_behind_or_down_is_told_with_what_it_fails_with(sources):
    late = msgspec.structs.replace(FINE, lag_records=7, lag_seconds=301.0)
    down = msgspec.structs.replace(late, failing="connection refused")
    found = await sources(health(redis=late, webhook=down))
    assert [each.title for each in found] == ["redis is behind on node n1", "webhook is down on node n1"]
    assert "7 records wait." in found[0].text and "connection refused" in found[1].text
    assert await sources(health(redis=late), sink_behind_s=400.0) == []
    assert all(each.ends and not each.shared for each in found)


async def test_a_journal_and_what_was_given_up(sources):
    state = msgspec.structs.replace(health(), journal_healthy=False, halted={"a.jsonl": "a gap"})
    titles = [each.title for each in await sources(state)]
    assert titles == ["The journal of node n1 cannot be written", "A journal file of node n1 is not delivered"]
    aside = msgspec.structs.replace(FINE, set_aside_records=3)
    titles = [each.title for each in await sources(health(history=aside), dead=2)]
    assert titles == ["The webhook of node n1 has given up 2 letters", "history could not take 3 records of node n1"]


async def test_models_without_a_price_and_what_breakers_stop(sources, control):
    await control.add(record(0, cost_nusd=None, request_model="home-made"), record(1))
    trip = Trip(
        id=trip_id("runaway", Place("acme", track="t")), breaker="runaway", workspace="acme", track="t", rate=9,
        usual=1, limit=5, created_at=1, until=2,
    )  # fmt: skip
    found = await sources(trips=[trip])
    assert [each.title for each in found] == [
        "Breaker runaway: track 't' of workspace 'acme' is stopped", "No price is known for openai/home-made",
    ]  # fmt: skip
    assert [each.kind for each in await sources(trips=[trip], workspace="beta")] == ["unpriced"]
    assert await sources(trips=[trip], on=["sink"]) == []


async def test_history_is_asked_for_prices_once_a_minute_and_reads_no_single_record():
    asked = []

    class Asked:
        async def usage(self, filters, group_by=(), window=None, tz="UTC"):
            asked.append(filters.from_us)
            return []

    now = [NOON_US + 7_000_000]
    found = Sources(
        node="n1", trips=list, history=Asked(), health=health, dead_letters=lambda: 0, now_us=lambda: now[0]
    )  # fmt: skip
    for _ in range(30):
        await found.of(AlertSettings(name="ops", webhook=True, on=["unpriced"], period_s=3_600.0))
        now[0] += 5_000_000
    assert len(asked) == 3 and all(from_us % 900_000_000 == 0 for from_us in asked)


async def test_a_history_that_is_down_is_told_of_as_a_sink(sources):
    from taximeter.sinks.history.database import HistoryUnavailable

    class Gone:
        async def usage(self, *args, **named):
            raise HistoryUnavailable("gone")

    down = msgspec.structs.replace(FINE, lag_records=1, lag_seconds=900.0, failing="gone")
    found = await sources(health(history=down), history=Gone())
    assert [each.title for each in found] == ["history is down on node n1"]
