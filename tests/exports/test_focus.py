"""Charges as FOCUS has them: complete, exact, and with nothing made up for what has no price."""

from collections import Counter
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from control_plane import DAY_US, NOON_US, embedding, record
from taximeter.core.correction import correction
from taximeter.core.prices import Card, Rates, cost_nusd
from taximeter.exports.focus import Focus, columns, corrections

MINI = Card(ref="genai-prices:gpt-4o-mini", rates=Rates(input=150_000, cached_input=37_500, output=600_000))
"""$0.15, $0.0375 and $0.60 for a million tokens."""


def charges(*records, card=MINI, **options):
    making = Focus(lambda _: card, **options)
    so_far = corrections((each for each in records if each.kind == "correction"), {})
    ordered = sorted(records, key=lambda each: each.ended_at)
    return [*making.add(ordered, so_far), *making.end()]


def priced(number, **given):
    call = record(number, **given)
    call.cost_nusd = cost_nusd(MINI, call)
    return call


def test_each_kind_of_token_is_a_charge_as_the_specification_has_ai_usage():
    rows = charges(priced(1, task="query"), priced(2, task="query", input_tokens=1_000_100))
    by_meter = {row["SkuMeter"]: row for row in rows}
    assert set(by_meter) == {"Input Tokens", "Cache Read Input Tokens", "Output Tokens"}
    told = by_meter["Input Tokens"]
    assert {name: told[name] for name in (
        "BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "ListUnitPrice", "PricingQuantity", "PricingUnit",
        "ConsumedQuantity", "ConsumedUnit", "x_Calls", "x_TokenType", "x_QuantitySource",
    )} == {
        **dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), Decimal("0.150024")),
        "ListUnitPrice": Decimal("0.15"), "PricingQuantity": Decimal("1.00016"), "PricingUnit": "1000000 Tokens",
        "ConsumedQuantity": Decimal("1000160.0"), "ConsumedUnit": "Tokens", "x_Calls": 2, "x_TokenType": "Input",
        "x_QuantitySource": "reported",
    }  # fmt: skip
    assert (told["ChargePeriodStart"], told["ChargePeriodEnd"]) == ("2026-11-03T00:00:00Z", "2026-11-04T00:00:00Z")
    assert (told["BillingPeriodStart"], told["BillingPeriodEnd"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert (told["ServiceCategory"], told["ServiceName"]) == ("AI and Machine Learning", "LLM Inference")
    assert (told["ProviderName"], told["SubAccountId"], told["x_Task"]) == ("openai", "acme", "query")
    assert told["Tags"] == '{"task":"query","workspace":"acme"}' and told["SkuId"] == "openai/gpt-4o-mini/Input Tokens"
    assert tuple(told) == columns("1.2") and "ServiceProviderName" in columns("1.4")
    assert "PublisherName" not in columns("1.4")


def test_a_day_a_scope_and_a_price_are_rows_of_their_own():
    calls = (priced(1), priced(2, ended_at=NOON_US + DAY_US), priced(3, workspace="beta"), priced(4, track="t"))
    assert Counter(row["ChargePeriodStart"] for row in charges(*calls) if row["SkuMeter"] == "Output Tokens") == {
        "2026-11-03T00:00:00Z": 2, "2026-11-04T00:00:00Z": 1,
    }  # fmt: skip
    by_track = charges(*calls, splits=("track",))
    assert {row["x_Track"] for row in by_track} == {None, "t"} and {row["x_Workspace"] for row in by_track} == {None}


def test_what_has_no_price_is_no_charge_but_is_told_apart():
    unknown = record(2, cost_nusd=None, unpriced_reason="model_without_price", request_model="m-1")
    failed = record(3, cost_nusd=None, input_tokens=None, output_tokens=None)
    assert {row["x_Model"] for row in charges(priced(1), unknown, failed)} == {"gpt-4o-mini"}
    told = charges(priced(1), unknown, failed, unpriced=True)
    assert {(row["x_Model"], row["BilledCost"], row["x_UnpricedReason"]) for row in told} == {
        ("m-1", None, "model_without_price")
    }
    assert {row["SkuMeter"]: row["ConsumedQuantity"] for row in told} == {
        "Input Tokens": 80, "Cache Read Input Tokens": 20, "Output Tokens": 30,
    }  # fmt: skip
    worth = cost_nusd(MINI, unknown)
    assert worth is not None
    later = correction(unknown, worth, MINI.ref, first=True)
    assert charges(unknown, later, unpriced=True) == []
    assert sum(row["BilledCost"] for row in charges(unknown, later)) == Decimal(worth) / 10**9


def test_a_call_that_was_priced_otherwise_is_told_as_it_was_recorded():
    (row,) = charges(priced(1), record(1, cost_nusd=7, input_tokens=1, output_tokens=None), card=None)[:1]
    assert row["PricingCategory"] == "Other" and row["x_PriceReference"] == "as recorded"
    assert row["PricingUnit"] == "Requests" and row["ConsumedQuantity"] == 2
    assert row["BilledCost"] == Decimal(priced(1).cost_nusd + 7) / 10**9


CALL = st.builds(
    lambda n, tokens, off, day, model: (n, tokens, off, day, model),
    st.integers(1, 10**6), st.tuples(st.integers(0, 9_999), st.integers(0, 9_999)), st.sampled_from((0, 0, 0, 5)),
    st.integers(0, 2), st.sampled_from(("a", "b")),
)  # fmt: skip


@given(st.lists(CALL, max_size=12, unique_by=lambda call: call[0]))
def test_charges_are_the_ledger_to_the_nano_dollar(calls):
    records = []
    for number, (tokens_in, tokens_out), off, day, model in calls:
        figures = {"input_tokens": tokens_in, "output_tokens": tokens_out, "cached_input_tokens": tokens_in // 3}
        call = priced(number, **figures, request_model=model, ended_at=NOON_US + day * DAY_US)
        records += [call, correction(call, off, None)] if off else [call]
    rows = charges(*records)
    assert sum((row["BilledCost"] for row in rows), Decimal(0)) == Decimal(sum(r.cost_nusd for r in records)) / 10**9
    for row in rows:
        if row["PricingCategory"] == "Standard":
            assert row["ListUnitPrice"] * row["PricingQuantity"] == row["ListCost"]
        assert row["ChargeCategory"] == "Usage" or abs(row["BilledCost"]) < Decimal("1e-7")


def test_an_embedding_is_another_service():
    (row,) = charges(embedding(1), card=Card(ref="r", rates=Rates(input=20_000)))
    assert (row["ServiceName"], row["BilledCost"]) == ("Embeddings", Decimal("0.00000032"))
