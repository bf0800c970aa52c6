"""A bill by price codes is exact, and is what taximeter_rag's own calculation says of the same usage."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from taximeter.core.pricecodes import UNITS, bill, price
from taximeter.core.views import TokenUsage
from taximeter_rag.usage import calculate_indexation_cost

quantities = st.integers(0, 10**9)
prices = st.fixed_dictionaries({code: st.integers(0, 10**9).map(lambda n: Decimal(n) / 10**9) for code in UNITS})


@given(embedding=quantities, prompt=quantities, completion=quantities, chunks=quantities, prices=prices)
def test_it_is_the_sum_of_its_lines_and_what_the_plugin_says(embedding, prompt, completion, chunks, prices) -> None:
    used = TokenUsage(embedding_tokens=embedding, llm_input_tokens=prompt, llm_output_tokens=completion)
    made = bill(used, chunks, prices)
    lines = [getattr(made, code) for code in UNITS]
    assert made.estimated_cost_usd == sum(line.cost_usd for line in lines)
    assert made.left_out == []
    for code, line in zip(UNITS, lines, strict=True):
        assert line.price_usd == prices[code]
        assert abs(line.cost_usd - prices[code] * line.quantity / line.unit) <= Decimal("5e-10")
    usage = {
        "embedding_tokens": embedding, "llm_input_tokens": prompt, "llm_output_tokens": completion,
        "total_chunks": chunks,
    }  # fmt: skip
    theirs = calculate_indexation_cost(usage, {code: str(price) for code, price in prices.items()})
    assert isinstance(made.estimated_cost_usd, Decimal)
    assert abs(Decimal(theirs) - made.estimated_cost_usd) <= Decimal("2e-9") + abs(Decimal(theirs)) * Decimal("1e-15")


@pytest.mark.parametrize(("written", "read"), [("", None), ("0.0001", Decimal("0.0001")), (1e-9, Decimal("1e-9"))])
def test_a_price_is_read_as_it_is_written(written, read) -> None:
    assert price(written) == read


@pytest.mark.parametrize("written", [-1, "1e-10", "nan", "inf", 1_000_001, "0,1", True])
def test_what_is_no_price_is_refused(written) -> None:
    with pytest.raises(ValueError, match="0 to 1,000,000, with at most 9 decimals"):
        price(written)


def test_nothing_used_and_nothing_priced_is_no_bill_and_nothing_left_out() -> None:
    made = bill(TokenUsage(), None, {})
    assert (made.left_out, made.estimated_cost_usd) == ([], UNSET)


def test_a_free_code_costs_nothing_and_is_not_left_out() -> None:
    made = bill(TokenUsage(embedding_tokens=5), None, {"rag_embedding": Decimal(0)})
    assert (made.left_out, made.estimated_cost_usd) == ([], Decimal(0))
