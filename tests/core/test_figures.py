from decimal import Decimal

import pytest

from taximeter.core import figures


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (7, "7"),
        (0.25, "0.25"),
        (0.1, "0.1"),
        (0.004, "0.004"),
        (3 * 0.004, "0.012"),
        (0.000_000_25, "0.00000025"),
        (-0.5, "-0.5"),
        (12.345, "12.35"),
        (1_500, "1.5k"),
        (2_000_000, "2M"),
        (3.2e9, "3.2B"),
        (4e12, "4T"),
    ],
)
def test_axes_are_short(number, shown):
    assert figures.short(number) == shown


@pytest.mark.parametrize(
    ("now", "before", "shown"),
    [(112, 100, "+12 %"), (97, 100, "−3 %"), (100, 100, "±0 %"), (300, 100, "×3.0"), (50_000, 100, "×500"),
     (5, 0, ""), (None, 3, ""), (5, None, ""), (0, 4, "−100 %"), (1, 500, "−99 %"),
     (Decimal("0.5"), Decimal("0.25"), "+100 %")],
)  # fmt: skip
def test_a_change_is_told_only_against_something(now, before, shown):
    assert figures.change(now, before) == shown


@pytest.mark.parametrize(
    ("part", "whole", "shown"), [(1, 4, "25 %"), (1, 1_000, "<1 %"), (0, 9, "0 %"), (3, 0, "—"), (None, 3, "—")]
)
def test_shares(part, whole, shown):
    assert figures.share(part, whole) == shown


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(None, "—"), (0, "0 ms"), (12.3, "12 ms"), (1_500, "1.5 s"), (90_000, "1 min 30 s"), (3_725_000, "1 h 2 min")],
)
def test_times_taken(ms, shown):
    assert figures.milliseconds(ms) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 B"), (1_536, "1.5 KiB"), (5 * 2**30, "5.0 GiB"), (2**41, "2.0 TiB")]
)
def test_sizes(number, shown):
    assert figures.size(number) == shown


@pytest.mark.parametrize(("number", "shown"), [(None, "—"), (0, "0"), (1_247, "1,247")])
def test_counts(number, shown):
    assert figures.count(number) == shown


@pytest.mark.parametrize(
    ("usd", "shown"),
    [(None, "—"), ("0", "$0.00"), ("1234.5", "$1,234.50"), ("0.0123456", "$0.0123"), ("0.5", "$0.50"),
     ("0.000123456", "$0.000123"), ("0.00000099", "<$0.000001"), ("-0.0123456", "-$0.0123"), ("-2", "-$2.00")],
)  # fmt: skip
def test_money(usd, shown):
    assert figures.money(None if usd is None else Decimal(usd)) == shown


def test_a_column_of_money_has_one_number_of_decimals():
    columns: list[list[str | None]] = [[None], ["0"], ["12", "0.001"], ["-0.5", None], ["0.02"]]
    amounts = [[None if one is None else Decimal(one) for one in column] for column in columns]
    assert [figures.places(column) for column in amounts] == [2, 2, 2, 4, 6]
    assert figures.money(Decimal("0.001"), 2) == "<$0.01"
    assert figures.money(Decimal("-1234.5"), 2) == "-$1,234.50"
    assert figures.money(Decimal(0), 4) == "$0.0000"


def test_a_rate_is_told_to_a_tenth_of_a_percent():
    assert [figures.rate(part) for part in (None, 0, 0.0004, 0.003, 1)] == [
        figures.UNKNOWN, "0.0 %", "<0.1 %", "0.3 %", "100.0 %",
    ]  # fmt: skip
