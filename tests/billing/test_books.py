"""Statements over a real history: what they say, closing once, and that nothing is stated twice or never."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import US, batch, call, calls
from taximeter.billing.books import Books, Tariff
from taximeter.billing.period import Asked, Period
from taximeter.billing.rule import Plan, Price, Rate
from taximeter.billing.shown import about
from taximeter.cli.moving import move
from taximeter.core.correction import correction
from taximeter.core.errors import BadRequest, Conflict, NotFound
from taximeter.core.record import Operation, Source
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.query import Filters

DAY_US = 86_400 * US
DAY0_US = 1_763_769_600 * US
"""2025-11-22."""
LATER_US = DAY0_US + 400 * DAY_US
FIRST, SECOND, THIRD = (
    Period(from_us=DAY0_US + number * DAY_US, to_us=DAY0_US + (number + 1) * DAY_US) for number in range(3)
)
NOON_US = DAY0_US + DAY_US // 2


class Kept:
    """A history, and its statements."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.writer = Writer(self.database)
        self.writer.prepare()
        self.books = Books(Reader(self.database))
        self.seq = 0

    def add(self, *records):
        self.writer.apply([batch(records, "j1", self.seq)])
        self.seq += len(records)

    def close(self, period, tariff=None, workspace="acme", **given):
        asked = Asked(workspace=workspace, period=period, **given)
        return self.books.close(asked, tariff or Tariff(), by="test", now_us=LATER_US)

    def preview(self, period, tariff=None, workspace="acme", **given):
        return self.books.preview(Asked(workspace=workspace, period=period, **given), tariff or Tariff())


@contextmanager
def opened(url: str) -> Iterator[Kept]:
    kept = Kept(url)
    try:
        yield kept
    finally:
        kept.database.dispose()


@pytest.fixture
def kept(url):
    with opened(url) as opened_one:
        yield opened_one


@pytest.fixture
def sqlite(tmp_path):
    with opened(f"sqlite:///{tmp_path / 'history.db'}") as opened_one:
        yield opened_one


DOUBLE = Tariff([Plan(name="double", factor_ppm=2_000_000)])


def at(number, us=NOON_US, **changes):
    return call(request_id=f"req-{number}", started_at=us - 1_000, ended_at=us, **changes)


def test_a_statement_by_model_and_task_with_cost_and_charge(kept):
    kept.add(
        at(1, task="query"),
        at(2, task="query", input_source=Source.COUNTED),
        at(3, task="index", request_model="o3", response_model="o3", cost_nusd=None,
           unpriced_reason="model_without_price"),
        at(4, us=NOON_US + DAY_US),
        at(5, workspace="beta"),
    )  # fmt: skip
    made = kept.preview(FIRST, DOUBLE)
    (query, index) = made.lines
    assert (query.key, query.cost_usd, query.charge_usd) == (
        {"model": "gpt-4o-mini", "task": "query"}, Decimal("0.000054"), Decimal("0.000108"),
    )  # fmt: skip
    assert (query.quantities.input_tokens, query.quantities.output_tokens, query.quantities.requests) == (200, 40, 2)
    assert query.quantities.counted_tokens == 100
    assert (index.cost_usd, index.unpriced_requests, index.unpriced_reasons) == (None, 1, {"model_without_price": 1})
    assert (made.total.cost_usd, made.total.charge_usd, made.total.margin_usd) == (
        Decimal("0.000054"), Decimal("0.000108"), None,
    )  # fmt: skip
    assert (index.charge_usd, index.uncharged_requests, made.total.uncharged_requests) == (None, 1, 1)
    assert made.number is None and made.plans == ["double"] and kept.books.standing("acme").statements == []


def test_what_gets_its_price_later_is_charged_on_the_next_statement(sqlite):
    sqlite.add(at(1, cost_nusd=None, unpriced_reason="model_without_price"))
    first = sqlite.close(FIRST, DOUBLE)
    assert (first.total.charge_usd, first.total.uncharged_requests, first.total.margin_usd) == (None, 1, None)
    sqlite.add(correction(at(1, cost_nusd=None), 21_000, "contract", first=True))
    second = sqlite.close(SECOND, DOUBLE)
    (line,) = second.lines
    assert (line.corrects, line.charge_usd, line.uncharged_requests) == (1, Decimal("0.000042"), -1)
    assert second.total.margin_usd == Decimal("0.000021")


def test_calls_billed_later_are_counted_however_many_older_ones_there_are(sqlite):
    def owing(number, us):
        nothing = dict.fromkeys(("cost_nusd", "input_tokens", "output_tokens", "total_tokens"))
        return at(number, us=us, deferred=f"batch_{number}", input_source=Source.DEFERRED,
                  output_source=Source.DEFERRED, unpriced_reason="deferred", **nothing)  # fmt: skip

    sqlite.add(
        *(owing(number, NOON_US) for number in range(1_100)), *(owing(n, NOON_US + DAY_US) for n in (2_000, 3_000))
    )
    assert sqlite.preview(FIRST).notes[-1].startswith("1,100 calls of this period will be billed later")
    assert sqlite.preview(SECOND).notes[-1].startswith("2 calls of this period will be billed later")


def test_what_comes_later_for_a_closed_period_is_on_the_next_statement(kept):
    kept.add(at(1), at(2, us=NOON_US + DAY_US))
    first = kept.close(FIRST, DOUBLE)
    assert (first.number, first.total.cost_usd, first.total.margin_usd) == (1, Decimal("0.000027"), Decimal("0.000027"))
    kept.add(at(3, task="late", cost_nusd=500), correction(at(1), -7_000, "other"))
    assert kept.books.show("acme", 1) == first
    standing = kept.books.standing("acme")
    assert (standing.ledger_usd, standing.stated_usd, standing.open_usd, standing.open_requests) == (
        Decimal("0.0000475"), Decimal("0.000027"), Decimal("0.0000205"), 2,
    )  # fmt: skip
    second = kept.close(SECOND, DOUBLE)
    assert [(line.corrects, line.key["task"], line.cost_usd, line.charge_usd) for line in second.lines] == [
        (None, None, Decimal("0.000027"), Decimal("0.000054")),
        (1, None, Decimal("-0.000007"), Decimal("-0.000014")),
        (1, "late", Decimal("0.0000005"), Decimal("0.000001")),
    ]
    third = kept.close(THIRD, DOUBLE)
    assert third.lines == [] and third.number == 3 and third.total.cost_usd == 0
    after = kept.books.standing("acme")
    assert (after.open_usd, after.open_requests, after.stated_usd) == (0, 0, after.ledger_usd)


def test_a_closed_period_is_charged_for_ever_by_the_plans_that_held_when_it_was_closed(sqlite):
    sqlite.add(at(1))
    sqlite.close(FIRST, DOUBLE)
    sqlite.add(at(2))
    (late,) = sqlite.preview(SECOND, Tariff([Plan(name="dear", factor_ppm=9_000_000)])).lines
    assert late.corrects == 1 and late.charge_usd == Decimal("0.000054")


def test_a_period_is_closed_once_and_not_before_it_is_over(kept):
    kept.add(at(1))
    kept.close(FIRST)
    overlapping = Period(from_us=FIRST.to_us - 900 * US, to_us=SECOND.to_us)
    for again in (FIRST, overlapping):
        with pytest.raises(Conflict, match="Statement 1 of acme"):
            kept.close(again)
    drawn = kept.preview(overlapping)
    assert "Statement 1 of acme has" in drawn.notes[0] and drawn.total.cost_usd == 0
    whole = kept.preview(Period(from_us=FIRST.from_us, to_us=SECOND.to_us))
    assert [line.corrects for line in whole.lines] == [None] and whole.total.cost_usd == Decimal("0.000027")
    with pytest.raises(BadRequest, match="is over at"):
        kept.books.close(Asked(workspace="acme", period=SECOND), Tariff(), by="x", now_us=SECOND.to_us - 1)
    with pytest.raises(NotFound):
        kept.books.show("acme", 2)
    with pytest.raises(NotFound, match="Nothing is recorded"):
        kept.preview(FIRST, workspace="nobody")


def test_of_two_nodes_that_close_at_once_one_is_told(kept, url):
    kept.add(at(1))
    with opened(url) as other:
        drafts = [
            each.books.draft(Asked(workspace="acme", period=FIRST), Tariff(), by=name, now_us=LATER_US)
            for name, each in (("one", kept), ("two", other))
        ]
        assert kept.books.keep(drafts[0], LATER_US).number == 1
        with pytest.raises(Conflict, match="closed meanwhile"):
            other.books.keep(drafts[1], LATER_US)
        assert [each.closed_by for each in other.books.standing("acme").statements] == ["one"]


def test_a_plan_of_codes_with_volume_tiers_and_chunks(sqlite):
    codes = Plan(
        name="rag",
        prices=(
            Price(code="rag_llm_input", kind="input", per=1_000, steps=((0, 0), (150, 1_500_000), (180, 1_000_000))),
            Price(code="rag_embedding", kind="embedding", per=1_000, steps=((0, 100_000),)),
            Price(code="rag_indexation", kind="chunk", per=1, steps=((0, 1_000_000),)),
        ),
    )
    sqlite.add(
        at(1, task="a"),
        at(2, task="b"),
        at(3, operation=Operation.EMBEDDING, output_tokens=None, output_source=Source.NONE, input_tokens=2_000),
    )
    made = sqlite.preview(FIRST, Tariff([codes]), by=("operation",), chunks=3)
    found = {line.key["operation"]: line for line in made.lines}
    assert found["llm"].charge_usd == Decimal("0.000065")  # 30 tokens at 0.0015 and 20 at 0.001 for 1,000
    assert found["llm"].left_out == ["output"] and found["llm"].prices[0].quantity == 200
    assert found["embedding"].charge_usd == Decimal("0.0002")
    assert found[None].charge_usd == Decimal("0.003") and found[None].quantities.chunks == 3
    assert made.total.charge_usd == Decimal("0.003265")
    assert [about(line) for line in made.lines if line.key["operation"] is None] == ["chunks"]
    (line,) = sqlite.preview(FIRST, Tariff([codes]), by=("track",), chunks=3).lines
    assert (about(line), line.quantities.requests) == ("no track", 3)  # calls without a track, and the chunks


def test_what_few_calls_use_is_on_their_line_and_corrected_too(kept):
    kept.add(at(1, web_search_requests=2, images=3, media_size="1x1"), at(2), at(3, seconds=2.0))
    (line,) = kept.close(FIRST).lines
    assert line.others == {"web_search_requests": 2, "images 1x1": 3} and line.quantities.audio_ms == 2_000
    kept.add(at(4, web_search_requests=5))
    (late,) = kept.close(SECOND).lines
    assert (late.corrects, late.others) == (1, {"web_search_requests": 5})
    assert kept.close(THIRD).lines == []


def test_volume_is_of_a_statement_however_many_plans_begin_inside_it(sqlite):
    """A plan of other calls that begins at noon parts the day, and gives this one no second volume."""
    free = Price(code="output", kind="output", per=1, steps=((0, 0), (30, 1_000)))
    sqlite.add(at(1, us=NOON_US - 1), at(2, us=NOON_US))
    other = Plan(name="b", factor_ppm=1, from_us=NOON_US, keys=("k",))
    made = sqlite.preview(FIRST, Tariff([Plan(name="a", prices=(free,)), other]))
    assert made.total.charge_usd == Decimal("0.00001")  # 10 of 40 are above 30


def test_the_margin_of_each_workspace(kept):
    kept.add(at(1), at(2, workspace="beta", cost_nusd=None), at(3, workspace="beta"), at(4, us=NOON_US + DAY_US))
    tariff = Tariff([Plan(name="double", factor_ppm=2_000_000), Plan(name="c", factor_ppm=1, workspaces=("gamma",))])
    kept.add(at(5, workspace="gamma", cost_nusd=1_000_000_000))
    found = kept.books.margins(FIRST, tariff).data
    assert [(each.workspace, each.requests, each.cost_usd, each.charge_usd, each.margin_usd) for each in found] == [
        ("acme", 1, Decimal("0.000027"), Decimal("0.000054"), Decimal("0.000027")),
        ("beta", 2, Decimal("0.000027"), Decimal("0.000054"), None),
        ("gamma", 1, Decimal(1), Decimal(2), Decimal(1)),
    ]


def test_a_plan_holds_from_its_date_on(sqlite):
    tariff = Tariff(
        [
            Plan(name="a", factor_ppm=1_000_000),
            Plan(name="b", factor_ppm=3_000_000, from_us=NOON_US),
            Plan(name="c", factor_ppm=5_000_000, keys=("k1",)),
        ]
    )
    sqlite.add(at(1, us=NOON_US - 1), at(2, us=NOON_US), at(3, key_id="k1"))
    made = sqlite.preview(FIRST, tariff, by=("key_id",))
    assert [(line.key["key_id"], line.charge_usd) for line in made.lines] == [
        ("k1", Decimal("0.000135")), (None, Decimal("0.000108")),
    ]  # fmt: skip
    assert sorted(made.plans) == ["a", "b", "c"]


def test_lines_are_rounded_once_in_the_currency_and_the_total_is_their_sum(sqlite):
    euro = [Rate(code="EUR", rate=Decimal("0.5")), Rate(code="EUR", rate=Decimal("0.9"), from_us=SECOND.from_us)]
    sqlite.add(at(1, task="a", cost_nusd=30_000_000), at(2, task="b", cost_nusd=30_000_000), at(3, us=SECOND.from_us))
    made = sqlite.close(FIRST, Tariff(rates=euro), currency="EUR")
    assert [str(line.cost) for line in made.lines] == ["0.02", "0.02"]  # 0.015 each
    assert (str(made.total.cost), made.total.cost_usd, made.total.charge) == ("0.04", Decimal("0.06"), None)
    sqlite.add(correction(at(1, task="a"), 1_000_000_000, "x"))
    (own, late) = sqlite.preview(SECOND, Tariff(rates=euro), currency="EUR").lines
    assert (own.rate, late.rate, str(late.cost)) == (Decimal("0.9"), Decimal("0.5"), "0.50")  # as the period was stated
    with pytest.raises(BadRequest, match="no rate of 'GBP'"):
        sqlite.preview(SECOND, currency="GBP")


def test_lines_by_end_user_come_of_single_records_as_long_as_they_are_kept(kept):
    kept.add(at(1, end_user="ann"), at(2, end_user="bob", cost_nusd=5), at(3))
    made = kept.close(FIRST, DOUBLE, by=("end_user",))
    assert [(line.key["end_user"], line.charge_usd) for line in made.lines] == [
        ("ann", Decimal("0.000054")), (None, Decimal("0.000054")), ("bob", Decimal("0.00000001")),
    ]  # fmt: skip
    while kept.writer.prune(DAY0_US + 60 * DAY_US):
        pass
    assert kept.books.show("acme", 1) == made
    assert kept.close(SECOND, DOUBLE).lines == []  # and sums by other names stay: nothing is short
    with pytest.raises(BadRequest, match="kept no longer"):
        kept.preview(Period(from_us=DAY0_US - DAY_US, to_us=DAY0_US), by=("track",))


def test_closed_statements_are_moved_with_the_history(sqlite, tmp_path):
    sqlite.add(at(1))
    closed = sqlite.close(FIRST, DOUBLE)
    with opened(f"sqlite:///{tmp_path / 'other.db'}") as other:
        move(sqlite.database, other.database, lambda table, rows: None)
        assert other.books.show("acme", 1) == closed
        assert other.books.standing("acme").open_usd == 0


def test_names_that_lines_cannot_be_grouped_by(sqlite):
    with pytest.raises(BadRequest, match="Cannot group lines by 'workspace'"):
        sqlite.preview(FIRST, by=("workspace",))


SHARED = Tariff(
    [
        Plan(
            name="mixed",
            factor_ppm=1_333_333,
            prices=(Price(code="input", kind="input", per=7, steps=((0, 3), (2_000, 2)), models=("m1",)),),
        ),
        Plan(name="later", factor_ppm=1_100_000, from_us=SECOND.from_us + DAY_US // 2),
    ]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("records"), st.lists(calls(3 * DAY_US), min_size=1, max_size=5)),
        st.tuples(st.just("close"), st.sampled_from([FIRST, SECOND, THIRD])),
    ),
    min_size=2,
    max_size=9,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("books")


_numbers = iter(range(10**9))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(STEPS)
def test_statements_and_what_is_open_are_the_ledger_in_any_order(folder, steps):
    """Records, corrections and closings as they may come: every sum of the ledger is on statements or open, once."""
    with opened(f"sqlite:///{folder / f'{next(_numbers)}.db'}") as kept:
        numbers: Counter[str] = Counter()
        for what, given_one in [*steps, *(("close", each) for each in (FIRST, SECOND, THIRD, SECOND))]:
            if what == "records":
                kept.add(*given_one)
                continue
            for workspace in ("acme", "beta"):
                try:
                    made = kept.close(given_one, SHARED, workspace=workspace)
                except (Conflict, NotFound):
                    continue
                numbers[workspace] += 1
                assert made.number == numbers[workspace]
        last = Period(from_us=DAY0_US + 5 * DAY_US, to_us=DAY0_US + 6 * DAY_US)
        for workspace in ("acme", "beta"):
            standing = None
            try:
                made = kept.close(last, SHARED, workspace=workspace)
                standing = kept.books.standing(workspace)
            except NotFound:
                continue
            ledger = kept.books._reader.usage(Filters(workspace=workspace, to_us=DAY0_US + 6 * DAY_US))[0]
            shown = [kept.books.show(workspace, each.number) for each in standing.statements]
            lines = [line for each in shown for line in each.lines]
            assert sum(line.cost_usd or 0 for line in lines) == Decimal(ledger.totals.cost_nusd).scaleb(-9)
            for name, total in (("requests", "requests"), ("input_tokens", "llm_input_tokens"), ("rerank_tokens",) * 2):
                assert sum(getattr(line.quantities, name) for line in lines) == getattr(ledger.totals, total)
            assert sum(line.unpriced_requests or 0 for line in lines) == ledger.totals.unpriced_requests
            assert standing.open_requests == kept.books._reader.usage(Filters(workspace=workspace))[
                0
            ].totals.requests - (ledger.totals.requests)
            # and what is charged is what each period is charged on its ledger now, whatever was stated when
            for period in (FIRST, SECOND, THIRD):
                number = next(each.number for each in kept.books._statements.of(workspace) if each.period == period)
                charged = sum(
                    line.charge_usd or 0
                    for each in shown
                    for line in each.lines
                    if line.corrects == number or (each.number == number and line.corrects is None)
                )
                assert charged == _fresh(kept, workspace, period)


def _fresh(kept, workspace, period):
    """What a first statement of the period would charge."""
    from taximeter.billing import making
    from taximeter.billing.books import _marks, _stretches

    marks = _marks(period, SHARED.plans)
    [sums] = kept.books._reader.stretches(Filters(workspace=workspace), [(making.KEY, marks)])
    parts = making.parts(making.KEY, _stretches(sums, marks), SHARED.plans, workspace, 0, period.to_us - 1)
    return Decimal(sum(part.charged.nusd or 0 for part in parts)).scaleb(-9)
