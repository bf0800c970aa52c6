"""Settling what budgets are charged for calls of which it was not known what they used."""

from decimal import Decimal

import pytest

from control_plane import NOON_US, record
from ledger import batch
from taximeter.budgets.responses import Settlement
from taximeter.budgets.settlements import settle
from taximeter.budgets.tally import Tally
from taximeter.core.errors import BadRequest, NotFound
from taximeter.core.holds import BUDGETS
from taximeter.core.record import Outcome, Record
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.schema import charges, meta
from taximeter.sinks.history.sink import History


@pytest.fixture
async def books(url):
    made = Books(History(url))
    yield made
    await made.history.close()


class Books:
    def __init__(self, history):
        self.history, self.seq = history, 0

    async def add(self, *records):
        await self.history.deliver([batch(records, "j1", self.seq)])
        self.seq += len(records)

    async def settle(self, request_id, **known):
        written: list[Record] = []
        told = await settle(self.history, request_id, Settlement(**known), written.append)
        await self.add(*written)
        return told, written

    async def charged(self, **asked):
        return [
            (each.request_id, each.attempt, each.tokens, each.cost_nusd) for each in await self.history.charges(**asked)
        ]


def lost(number, tokens=700, cost_nusd=9_000, **more):
    return record(
        number, outcome=Outcome.TIMEOUT, tags={BUDGETS: "bud_1"}, input_tokens=None, output_tokens=None,
        total_tokens=None, cached_input_tokens=None, reasoning_output_tokens=None, cost_nusd=None, price_ref=None,
        charged_tokens=tokens, charged_cost_nusd=cost_nusd, **more,
    )  # fmt: skip


async def test_what_is_charged_is_listed_and_written_off_once(books):
    await books.add(lost(1), record(2), lost(3, workspace="beta"))
    assert await books.charged() == [("req-3", 1, 700, 9_000), ("req-1", 1, 700, 9_000)]
    assert await books.charged(workspace="beta") == [("req-3", 1, 700, 9_000)]
    told, [written] = await books.settle("req-1")
    assert [(each.charged_tokens, each.charged_usd) for each in told] == [(700, Decimal("0.000009"))]
    assert (written.kind, written.cost_nusd, written.charged_tokens, written.charged_cost_nusd) == (
        "correction", None, -700, -9_000,
    )  # fmt: skip
    assert written.tags == {BUDGETS: "bud_1"} and await books.charged() == [("req-3", 1, 700, 9_000)]
    with pytest.raises(NotFound):
        await books.settle("req-1")
    with pytest.raises(NotFound):
        await books.settle("req-2")


async def test_what_it_cost_becomes_a_cost_and_its_tokens_stay_charged(books):
    await books.add(lost(1))
    _, [written] = await books.settle("req-1", usd=Decimal("0.000004"), tokens=300)
    assert written.cost_nusd == 4_000
    assert await books.charged() == [("req-1", 1, 300, 0)]
    kept = await books.history.record("req-1")
    assert [(each.kind, each.charged_tokens, each.cost_nusd) for each in kept] == [
        ("usage", 700, None), ("correction", -400, 4_000),
    ]  # fmt: skip
    [whole] = await owed(books, {})
    assert (whole.used, whole.charged) == (0, 300)


async def owed(books, *scopes, period="total", now_us=NOON_US):
    """What the token budgets of these scopes come to."""
    tallies = [Tally("tokens", period, "UTC", tuple(scope.items())) for scope in scopes]
    ledger = await books.history.ledger(
        "acme", days_from_us=0, hours_from_us=0, tracks_from_us=0, tallies=tallies, now_us=now_us
    )
    return ledger.sums


@pytest.mark.parametrize("wrong", [{"tokens": -1}, {"usd": Decimal("-1")}, {"usd": Decimal("NaN")},
                                   {"usd": Decimal("0.0000000001")}, {"tokens": 2**60}])  # fmt: skip
async def test_what_cannot_be_meant_is_refused(books, wrong):
    await books.add(lost(1))
    with pytest.raises(BadRequest):
        await books.settle("req-1", **wrong)
    assert await books.charged() == [("req-1", 1, 700, 9_000)]


async def test_charges_are_summed_by_period_and_by_what_calls_say(books):
    day_us = 86_400 * 10**6
    first = lost(1, task="query", key_id="k", track="t", end_user="u")
    await books.add(first, lost(2, task="query", ended_at=first.ended_at - 40 * day_us), lost(3, workspace="beta"))

    async def sums(scope, period):
        found = await owed(books, scope, period=period, now_us=first.ended_at)
        return {each.values: each.charged for each in found}

    assert await sums({}, "total") == {(): 1_400} and await sums({}, "day") == {(): 700}
    assert await sums({"task": "query"}, "total") == {("query",): 1_400}
    assert await sums({"key_id": "*", "end_user": "u"}, "month") == {("k", "u"): 700}
    assert await sums({"track": "*", "upstream": "*"}, "rolling 30d") == {("t", "openai"): 700}


def test_a_history_of_version_2_is_brought_up_to_date(url):
    with Database(url) as database, database.writing() as connection:
        charges.drop(connection)
        connection.execute(meta.update().where(meta.c.name == "version").values(value="2"))
    with Database(url) as database, database.reading() as connection:
        assert connection.execute(charges.select()).all() == []
