"""Pricing again: the difference is what is corrected, nothing is corrected twice, and a failed half is completed."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closing import closed
from control_plane import DAY_US, NOON_US, record
from journals import journal
from ledger import batch, calls
from taximeter.config import JournalSettings
from taximeter.control.services.corrections import Corrections
from taximeter.control.services.reprice import reprice
from taximeter.core.errors import ConfigError, JournalError
from taximeter.core.record import Outcome, Record, Source
from taximeter.delivery import Delivery
from taximeter.sinks.history.sink import History
from taximeter.sinks.query import Filters

ALWAYS = Filters()


class PerToken:
    """Nano-USD by the input token, by model; other models have no price."""

    def __init__(self, **rates):
        self.rates = {name.replace("_", "-"): rate for name, rate in rates.items()}
        self.problem = ""

    def read(self):
        if self.problem:
            raise ConfigError(self.problem)
        return self

    def cost(self, one):
        rate = self.rates.get(one.model)
        if rate is None or one.input_tokens is None:
            return None, None
        return rate * one.input_tokens, f"test@{rate}"

    def why(self, one):
        if one.outcome in (Outcome.REFUSED, Outcome.UPSTREAM_ERROR):
            return None
        return "usage_unknown" if one.input_tokens is None else "model_without_price"


@pytest.fixture
async def history(tmp_path):
    history = History(f"sqlite:///{tmp_path / 'history.db'}")
    await history.prepare()
    yield history
    await history.close()


class Books:
    """A history, and a journal's worth of records delivered to it."""

    def __init__(self, history):
        self.history, self.seq, self.written = history, 0, []

    async def add(self, *records):
        assert await self.history.deliver([batch(records, "j1", self.seq)])
        self.seq += len(records)

    async def reprice(self, prices, filters=ALWAYS, fails_after=None):
        """Corrections reach history even when writing them failed half-way."""
        written: list[Record] = []

        def write(one):
            if fails_after is not None and len(written) >= fails_after:
                raise JournalError("disk full")
            written.append(one)

        try:
            return await reprice(self.history, prices, filters, write)
        finally:
            if written:
                await self.add(*written)
            self.written = written

    async def cost(self, **filters):
        found = await self.history.usage(Filters(**filters), ())
        return found[0].totals.cost_nusd if found else 0


@pytest.fixture
def books(history):
    return Books(history)


async def test_only_what_differs_is_corrected_and_only_once(books):
    await books.add(record(1, cost_nusd=700), record(2, cost_nusd=1_000), record(3, request_model="home-made"))
    (mini, made) = await books.reprice(PerToken(gpt_4o_mini=10))
    assert (mini.model, mini.requests, mini.corrected, mini.before_nusd, mini.after_nusd) == (
        "gpt-4o-mini", 2, 1, 1_700, 2_000,
    )  # fmt: skip
    assert (made.requests, made.corrected, made.unpriced, made.before_nusd, made.after_nusd) == (
        1,
        0,
        1,
        33_000,
        33_000,
    )
    (one,) = books.written
    assert (one.kind, one.request_id, one.cost_nusd, one.ended_at, one.price_ref) == (
        "correction", "req-1", 300, NOON_US + 1_000_000, "test@10",
    )  # fmt: skip
    assert one.input_tokens is None and await books.cost() == 2_000 + 33_000
    again = await books.reprice(PerToken(gpt_4o_mini=10))
    assert books.written == [] and sum(change.corrected for change in again) == 0
    assert (await books.reprice(PerToken(gpt_4o_mini=7)))[0].before_nusd == 2_000  # and later prices go on from there
    assert await books.cost() == 1_400 + 33_000


async def test_a_call_without_a_price_gets_one_even_if_that_is_nothing(books):
    await books.add(record(1, cost_nusd=None), record(2, cost_nusd=None, request_model="free", input_tokens=5))
    await books.reprice(PerToken(gpt_4o_mini=10, free=0))
    assert sorted((one.request_id, one.cost_nusd) for one in books.written) == [("req-1", 1_000), ("req-2", 0)]
    await books.reprice(PerToken(gpt_4o_mini=10, free=0))
    assert books.written == []


async def test_what_was_priced_later_no_longer_counts_as_unpriced(books, history):
    await books.add(record(1, cost_nusd=None), record(2, cost_nusd=700), record(3, cost_nusd=None, request_model="x"))

    async def unpriced(**filters):
        found = await history.usage(Filters(**filters), ())
        return found[0].totals.unpriced_requests

    assert await unpriced() == 2
    for price in (10, 10, 7):  # again, and at another price: it is counted out once
        await books.reprice(PerToken(gpt_4o_mini=price))
        assert await unpriced() == await unpriced(from_us=NOON_US - DAY_US, to_us=NOON_US + 2 * DAY_US) == 1
    assert [one.input_source for one in books.written] == [Source.NONE, Source.NONE]


async def test_what_has_no_cost_is_told_by_its_reason_and_apart_from_what_was_refused_or_failed(books):
    await books.add(
        record(1, cost_nusd=None, request_model="home-made"),
        record(2, cost_nusd=None, input_tokens=None, request_model="home-made"),
        record(3, cost_nusd=None, outcome=Outcome.REFUSED, request_model="home-made"),
        record(4, cost_nusd=None, outcome=Outcome.UPSTREAM_ERROR, request_model="home-made"),
    )
    (change,) = await books.reprice(PerToken())
    assert (change.requests, change.unpriced, change.not_billed, change.corrected) == (4, 2, 2, 0)
    assert change.unpriced_reasons == {"model_without_price": 1, "usage_unknown": 1}


async def test_a_correction_belongs_to_the_period_track_and_task_of_its_call(books):
    await books.add(record(1, track="t", task="query", ended_at=NOON_US + DAY_US), record(2))
    await books.reprice(PerToken(gpt_4o_mini=1_000), Filters(from_us=NOON_US + DAY_US, to_us=NOON_US + 2 * DAY_US))
    assert len(books.written) == 1
    assert await books.cost(track="t") == await books.cost(task="query") == 100_000
    assert await books.cost(from_us=NOON_US + DAY_US) == 100_000 and await books.cost(to_us=NOON_US + DAY_US) == 33_000


async def test_attempts_of_one_request_are_corrected_apart(books):
    await books.add(
        record(1, attempt=1, outcome=Outcome.UPSTREAM_CUT, cost_nusd=1),
        record(1, attempt=2, input_tokens=9, cost_nusd=1),
    )
    await books.reprice(PerToken(gpt_4o_mini=10))
    assert {(one.attempt, one.cost_nusd) for one in books.written} == {(1, 999), (2, 89)}
    await books.reprice(PerToken(gpt_4o_mini=10))
    assert books.written == []


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(found=st.lists(calls(), max_size=30), rates=st.lists(st.integers(0, 9), max_size=3), fails=st.integers(0, 30))
async def test_after_any_repricings_each_priced_call_costs_what_it_would_now(tmp_path_factory, found, rates, fails):
    async with closed(History(f"sqlite:///{tmp_path_factory.mktemp('h') / 'history.db'}")) as history:
        await repriced_again_and_again(Books(history), found, rates, fails)


async def repriced_again_and_again(books, found, rates, fails):
    used = [one for one in found if one.kind == "usage"]
    for number, one in enumerate(used):
        one.request_id, one.attempt = f"req-{number}", 1
    await books.add(*used)
    for rate in [*rates, 3]:
        try:
            await books.reprice(PerToken(m1=rate, m2=rate + 1), fails_after=fails)
        except JournalError:
            await books.reprice(PerToken(m1=rate, m2=rate + 1))
    now = [PerToken(m1=3, m2=4).cost(one)[0] for one in used]
    expected = sum(one.cost_nusd or 0 if cost is None else cost for one, cost in zip(used, now, strict=True))
    assert await books.cost() == expected
    await books.reprice(PerToken(m1=3, m2=4))
    assert books.written == []


@pytest.fixture
async def node(tmp_path, history, start):
    """A control plane with a journal, delivery and prices of its own: (control, worker's journal, prices)."""
    directory = tmp_path / "journal"
    delivery = Delivery(directory, [history], settings=JournalSettings(), node="n", now_us=lambda: NOON_US)
    prices = PerToken(gpt_4o_mini=10)
    corrections = Corrections(
        history, delivery, prices=prices.read, journal=lambda: journal(directory, worker="control")
    )
    control = await start(corrections=corrections)
    control.use(delivery)
    running = asyncio.ensure_future(delivery.run())
    worker = journal(directory)
    yield control, worker, prices
    worker.shutdown()
    corrections.close()
    running.cancel()
    await asyncio.wait([running])


async def test_over_http_a_period_is_priced_again(node, history):
    control, worker, _ = node
    for number in range(3):
        worker.append(record(number, cost_nusd=700))
    asked = {"from": "2026-11-03", "to": "2026-11-04"}
    total: dict[str, object] = {
        "provider": None, "model": None, "requests": 3, "corrected": 3, "unpriced": 0, "unpriced_reasons": {},
        "not_billed": 0, "before_usd": 0.0000021,
        "after_usd": 0.000003, "difference_usd": 0.0000009,
    }  # fmt: skip
    answer = (await control.client.post("/reprice", json={**asked, "dry_run": True})).json()
    assert answer == {
        "from": "2026-11-03T00:00:00Z", "to": "2026-11-04T00:00:00Z", "dry_run": True,
        "models": [total | {"provider": "openai", "model": "gpt-4o-mini"}], "total": total,
    }  # fmt: skip
    assert await history.count(Filters(kind="correction")) == 0
    for corrected in (3, 0):  # the second answer already sees what the first has written
        answer = (await control.client.post("/reprice", json=asked)).json()
        assert answer["total"]["corrected"] == corrected
    assert (await history.usage(Filters(), ()))[0].totals.cost_nusd == 3_000


async def test_prices_that_cannot_be_read_are_named_and_nothing_is_corrected(node, history):
    control, worker, prices = node
    worker.append(record(1, cost_nusd=700))
    prices.problem = "config/prices.toml: Object contains unknown field `input`."
    for dry_run in (True, False):
        answer = await control.client.post("/reprice", json={"from": "2026-11-03", "dry_run": dry_run})
        assert answer.status_code == 503 and "unknown field `input`" in answer.json()["error"]["message"]
    assert await history.count(Filters(kind="correction")) == 0


async def test_two_at_once_correct_once(node, history):
    control, worker, _ = node
    for number in range(20):
        worker.append(record(number, cost_nusd=None))
    answers = await asyncio.gather(*(control.client.post("/reprice", json={"from": "2026-11-03"}) for _ in range(3)))
    assert sorted(answer.json()["total"]["corrected"] for answer in answers) == [0, 0, 20]
    assert await history.count(Filters(kind="correction")) == 20


async def test_a_period_that_cannot_be_meant_is_refused(node, start):
    control, _, _ = node
    for body in ({}, {"from": "yesterday"}, {"from": "2026-11-04", "to": "2026-11-03"}, {"from": "2026-11-03", "x": 1}):
        assert (await control.client.post("/reprice", json=body)).status_code == 400
    control = await start()
    assert (await control.client.post("/reprice", json={"from": "2026-11-03"})).status_code == 404
