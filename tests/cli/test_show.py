import json
from decimal import Decimal

import msgspec
import pytest

from taximeter.cli.show import console, count, echo, money, table


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


ODD = "a\x1b[31m\x9b2J\n\u202eb\u2028[bold]:smile:"
SPELLED = r"a\x1b[31m\x9b2J\n\u202eb\u2028[bold]:smile:"


def test_what_is_printed_is_seen_for_what_it_is_and_is_no_markup(capsys):
    echo(ODD)
    console().print(ODD)
    console().print(table([ODD], [], [(ODD,)]))
    out = capsys.readouterr().out
    assert out.count(SPELLED) == 4
    assert {each for each in out if not each.isprintable()} == {"\n"}


def test_json_stays_what_it_was(capsys):
    echo(msgspec.json.encode({"model": ODD}))
    out = capsys.readouterr().out
    assert json.loads(out) == {"model": ODD}
    assert {each for each in out if not each.isprintable()} == {"\n"}
