"""The table of usage fields: what its notation means, and that each of its names can be right."""

from __future__ import annotations

import pytest

from taximeter.core.usage import COUNTS, Reading
from taximeter.flavors import FLAVORS
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.dialects import UNKNOWN, UNMETERED
from taximeter.flavors.usage import fields
from taximeter.flavors.usage.fields import FieldNames

TABLES = {name: value for name, value in vars(fields).items() if isinstance(value, FieldNames)}
WRONG = Reading(input_tokens=1, output_tokens=2, inconsistent=True)
EXAMPLE = FieldNames("https://example.com", input_tokens="a | b + c | inner.d", output_tokens="out.e", total_tokens="t")


@pytest.mark.parametrize(
    ("usage", "want"),
    [
        ({"a": 1, "b": 2}, Reading(input_tokens=1)),
        ({"a": None, "b": 2, "c": 3}, Reading(input_tokens=5)),
        ({"a": "1", "inner": {"d": 4}}, Reading(input_tokens=4)),
        ({"a": 0, "inner": []}, Reading(input_tokens=0)),
        ({"output_tokens_details": {"e": 7}, "completion_tokens_details": None}, Reading(output_tokens=7)),
        ({"a": 1, "output_tokens_details": {"e": 2}, "t": 3}, Reading(input_tokens=1, output_tokens=2)),
        ({"a": 1, "output_token_details": {"e": 2}, "t": 4}, WRONG),
        ({"t": 4}, Reading()),
        ({}, Reading()),
    ],
)  # fmt: skip
def test_the_notation(usage: dict[str, object], want: Reading) -> None:
    assert EXAMPLE.read(usage) == want


@pytest.mark.parametrize("name", TABLES)
def test_every_figure_is_a_records_and_every_table_says_where_it_is_documented(name: str) -> None:
    assert TABLES[name].figures.keys() <= {*COUNTS, "seconds", "total_tokens"}
    assert TABLES[name].source.startswith("https://")


def test_every_row_says_where_its_api_is_documented() -> None:
    rows = [flavor for _, flavor in FLAVORS if flavor not in (UNKNOWN, UNMETERED)]
    assert len(rows) > 30
    assert not [row for row in rows if not isinstance(row, Dialect) or not row.source.startswith("https://")]
