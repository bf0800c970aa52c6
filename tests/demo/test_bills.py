"""The demo must be able to fail: a figure that differs is found, on either side and in Redis."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from taximeter.demo import bills
from taximeter.demo.provider import Bill

BILLS = {
    ("sk-demo-acme", "gpt-4o-mini"): Bill(2, 100, 40, 50, 0, 0),
    ("sk-demo-acme", "rerank-v3.5"): Bill(1, search_units=1),
}
LLM = {"input_tokens": 100, "cached_input_tokens": 40, "output_tokens": 50, "reasoning_output_tokens": 0}
WORKSPACES = ("acme",)


def answer(**change: int) -> bytes:
    """What /usage would say of BILLS, with `change` to the first group's LLM figures."""
    none = {"requests": 0, "input_tokens": 0}
    llm = {"requests": 2, **LLM}
    chat = {"requests": 2, "llm": llm | change, "embedding": none, "rerank": none | {"search_units": 0}}
    rerank = {"requests": 1, "llm": none, "embedding": none, "rerank": none | {"search_units": 1}}
    groups = [
        {"workspace": "acme", "model": "gpt-4o-mini", "usage": chat, "estimated_cost_usd": 0.000042},
        {"workspace": "acme", "model": "rerank-v3.5", "usage": rerank, "estimated_cost_usd": 0.002},
    ]
    return json.dumps({"groups": groups}).encode()


def test_equal_bills_agree() -> None:
    billed = bills.billed(BILLS, WORKSPACES)
    assert bills.differences(billed, bills.metered(answer())) == []
    assert bills.total(billed)["cost_usd"] == Decimal("0.002042")


@pytest.mark.parametrize("name", LLM)
def test_one_token_of_difference_is_found(name: str) -> None:
    was = LLM[name]
    (found,) = bills.differences(bills.billed(BILLS, WORKSPACES), bills.metered(answer(**{name: was + 1})))
    assert found == f"acme gpt-4o-mini {name}: the provider billed {was}, Taximeter says {was + 1}"


def test_a_model_only_one_side_knows_is_found() -> None:
    billed = bills.billed(BILLS, WORKSPACES)
    assert bills.differences(billed, {}) != []
    assert bills.differences({}, billed) != []


@pytest.mark.parametrize("name", ["requests", "total_tokens", "search_units", "cost_nusd"])
def test_a_redis_counter_that_differs_is_found(name: str) -> None:
    fields = {"requests": "3", "total_tokens": "150", "search_units": "1", "cost_nusd": "2042000"}
    billed = bills.billed(BILLS, WORKSPACES)
    assert bills.redis_differences(billed, {"acme": fields}) == []
    (found,) = bills.redis_differences(billed, {"acme": fields | {name: "7"}})
    assert f"tm:{{acme}}:total {name}" in found
    assert len(bills.redis_differences(billed, {"acme": {}})) == 4
