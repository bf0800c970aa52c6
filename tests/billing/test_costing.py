"""The provider's unit prices on a statement's lines: told where one price held for all of a line, never guessed."""

from decimal import Decimal

import pytest
from msgspec.structs import replace as changed

from billing.test_books import DOUBLE, FIRST, NOON_US, opened
from control_plane import record
from taximeter.billing import costing, shown
from taximeter.billing.books import Tariff
from taximeter.billing.formats import as_csv
from taximeter.billing.statement import for_customer
from taximeter.control.services.unit_prices import itemise
from taximeter.core.correction import correction
from taximeter.core.prices import Card, Rates, cost_nusd

MINI = Card(ref="list", rates=Rates(input=150_000, cached_input=75_000, output=600_000))
TARIFF = Tariff(DOUBLE.plans, (), itemise(lambda call: MINI if call.model == "gpt-4o-mini" else None))


def priced(number, card=MINI, **given):
    call = record(number, ended_at=NOON_US + number, **given)
    call.cost_nusd = cost_nusd(card, call)
    return call


@pytest.fixture
def kept(tmp_path):
    with opened(f"sqlite:///{tmp_path / 'history.db'}") as one:
        yield one


def told(line):
    return [(each.unit, each.quantity, each.per, each.usd) for each in line.cost_prices]


def test_one_price_for_all_of_a_line_is_told_with_its_quantities(kept):
    kept.add(priced(1), priced(2, input_tokens=1_020, total_tokens=1_050))
    made = kept.close(FIRST, TARIFF)
    (line,) = made.lines
    assert told(line) == [
        ("Input Tokens", 1_080, 1_000_000, Decimal("0.15")),
        ("Cache Read Input Tokens", 40, 1_000_000, Decimal("0.075")),
        ("Output Tokens", 60, 1_000_000, Decimal("0.6")),
    ]
    assert sum(each.quantity * each.usd / each.per for each in line.cost_prices) == line.cost_usd
    assert "cost: 1,080 input tokens at USD 0.15 for 1,000,000; " in shown.row(line, 9).prices
    assert kept.books.show("acme", 1) == made and b"cost: 1,080 input tokens" in as_csv(made)
    theirs = for_customer(made)
    assert shown.row(theirs.lines[0], 9).prices == "" and b"cost" not in as_csv(theirs)


@pytest.mark.parametrize(
    "other",
    [
        priced(2, Card(ref="old", rates=Rates(input=200_000, cached_input=75_000, output=600_000))),  # another price
        priced(2, request_model="home-made", task="query"),  # no price known any more
    ],
)
def test_where_it_did_not_hold_for_all_of_it_none_is_told(kept, other):
    kept.add(priced(1, task="query"), changed(other, task="query"))
    assert [told(line) for line in kept.preview(FIRST, TARIFF, by=("task",)).lines] == [[]]


def test_what_is_priced_again_is_told_at_the_new_price(kept):
    old = priced(1, Card(ref="old", rates=Rates(input=200_000, cached_input=75_000, output=600_000)))
    kept.add(old, correction(old, (cost_nusd(MINI, old) or 0) - (old.cost_nusd or 0), "list"))
    (line,) = kept.preview(FIRST, TARIFF).lines
    assert told(line)[0] == ("Input Tokens", 80, 1_000_000, Decimal("0.15"))


def test_of_too_many_records_none_is_told(kept, monkeypatch):
    kept.add(priced(1), priced(2))
    monkeypatch.setattr(costing, "MOST_RECORDS", 1)
    assert [told(line) for line in kept.preview(FIRST, TARIFF).lines] == [[]]
