from decimal import Decimal

import pytest

from taximeter.cli.show import count, money


@pytest.mark.parametrize(
    ("usd", "shown"),
    [(None, "—"), ("0", "$0.00"), ("12.45", "$12.45"), ("12.455", "$12.46"), ("1234567.1", "$1,234,567.10"),
     ("0.7050990", "$0.7051"), ("0.72", "$0.72"), ("0.5", "$0.50"), ("0.000113", "$0.000113"), ("0.00012", "$0.00012"),
     ("0.000000320", "<$0.000001"), ("-0.25", "-$0.25"), ("-3", "-$3.00")],
)  # fmt: skip
def test_money_is_short_and_never_shows_nothing_for_something(usd, shown):
    assert money(None if usd is None else Decimal(usd)) == shown


def test_counts():
    assert (count(1247), count(0), count(None)) == ("1,247", "0", "—")
