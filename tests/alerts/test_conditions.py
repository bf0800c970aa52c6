"""What is worth an alert, of a real history and of health as delivery tells it."""

from decimal import Decimal

import msgspec
import pytest

from control_plane import NOON_US, control, record, start
from taximeter.alerts.conditions import Sources, budget
from taximeter.breaker.rule import Place, Trip, trip_id
from taximeter.budgets.reservations import Spent
from taximeter.budgets.responses import info
from taximeter.budgets.rule import Budget
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

    async def find(state=None, *, budgets=(), trips=(), dead=0, history=None, **alert):
        async def listing():
            return list(budgets)

        found = Sources(
            node="n1", budgets=listing, trips=lambda: list(trips), history=history or control.history,
            health=lambda: state or health(), dead_letters=lambda: dead, now_us=lambda: NOON_US + 1_000_000,
        )  # fmt: skip
        return await found.of(AlertSettings(name="ops", webhook=True, **alert))

    return find


def shown(limit=100, period="month", **more):
    made = Budget(id="bud_1", workspace="acme", unit="tokens", period=period, limit=limit)
    return info(made, NOON_US, Spent(**{"spent": 0, "held": 0, "charged": 0, **more}))


async def test_where_all_is_well_nothing_is_told(sources, control):
    await control.add(record(1))
    assert await sources(budgets=[shown(spent=49)]) == []


@pytest.mark.parametrize(
    ("figures", "reached"),
    [
        ({"spent": 50}, 50),
        ({"spent": 79}, 50),
        ({"spent": 60, "charged": 20}, 80),
        ({"spent": 250}, 100),
        ({"held": 100}, None),
    ],
)
async def test_the_highest_threshold_of_a_budget_is_told(sources, figures, reached):
    found = await sources(budgets=[shown(**figures)])
    assert [each.subject for each in found] == ([] if reached is None else [f"bud_1:2026-12-01T00:00:00Z:{reached}"])
    if reached:
        assert found[0].title == f"{reached} % of the budget of workspace acme is used" and found[0].once


def test_of_a_rolling_window_whose_end_moves_on_a_threshold_is_told_as_anything_else():
    (found,) = budget(shown(period="rolling 24h", spent=90), [50, 80])
    assert (found.subject, found.once) == (
        "bud_1:rolling 24h:80",
        False,
    ) and "of 100 tokens in rolling 24h" in found.text


def test_a_budget_of_which_redis_says_nothing_is_not_told_of():
    assert list(budget(msgspec.structs.replace(shown(), spent=None), [50])) == []
    assert list(budget(msgspec.structs.replace(shown(), spent=Decimal(0)), [50])) == []


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


async def test_a_history_that_is_down_is_told_of_as_a_sink(sources):
    from taximeter.sinks.history.database import HistoryUnavailable

    class Gone:
        async def usage(self, *args, **named):
            raise HistoryUnavailable("gone")

    down = msgspec.structs.replace(FINE, lag_records=1, lag_seconds=900.0, failing="gone")
    found = await sources(health(history=down), history=Gone())
    assert [each.title for each in found] == ["history is down on node n1"]
