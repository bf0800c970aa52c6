from decimal import Decimal
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core import views
from taximeter.core.totals import Totals
from taximeter.core.views import ModelSums

NO_DETAILS = SimpleNamespace(
    attempts=2, audio_input_tokens=0, audio_output_tokens=0, accepted_prediction_tokens=0, rejected_prediction_tokens=0
)


@pytest.mark.parametrize(
    ("nusd", "text"),
    [(0, "0"), (113_000, "0.000113"), (2_000_000_000, "2"), (1_234_567_890, "1.23456789"), (-5_500_000_000, "-5.5"),
     (9_223_372_036_854_775_807, "9223372036.854775807"), (100_000_000_000, "100")],
)  # fmt: skip
def test_nano_usd_is_shown_as_exact_usd(nusd, text):
    assert str(views.usd(nusd)) == text


@given(st.integers(-(2**63), 2**63))
def test_no_money_is_lost_in_json(nusd):
    encoded = msgspec.json.Encoder(decimal_format="number").encode(views.usd(nusd))
    assert msgspec.json.decode(encoded, type=Decimal) * views.NUSD_PER_USD == nusd


def test_cost_is_null_only_where_nothing_could_be_priced():
    assert views.cost_usd(Totals()) == 0
    assert views.cost_usd(Totals(unpriced_requests=1)) is None
    assert views.cost_usd(Totals(unknown_requests=1)) is None
    assert views.cost_usd(Totals(unpriced_requests=1, cost_nusd=5)) == Decimal("0.000000005")


def test_usage_tells_llm_embedding_and_rerank_apart():
    shown = views.usage(
        Totals(
            requests=4, errors=1, unknown_requests=1, llm_requests=2, embedding_requests=1, rerank_requests=1,
            llm_input_tokens=300, llm_cached_input_tokens=64, llm_output_tokens=96, llm_reasoning_output_tokens=7,
            embedding_tokens=16, rerank_tokens=5, search_units=2, total_tokens=417, counted_tokens=1,
            estimated_tokens=2,
        )
    )  # fmt: skip
    assert msgspec.to_builtins(shown) == {
        "requests": 4, "errors": 1, "unknown_requests": 1, "total_tokens": 417, "counted_tokens": 1,
        "estimated_tokens": 2,
        "llm": {"requests": 2, "input_tokens": 300, "cached_input_tokens": 64, "output_tokens": 96,
                "reasoning_output_tokens": 7},
        "embedding": {"requests": 1, "input_tokens": 16},
        "rerank": {"requests": 1, "search_units": 2, "input_tokens": 5},
    }  # fmt: skip


def test_token_usage_of_nothing_has_no_models_and_zeros():
    assert msgspec.to_builtins(views.token_usage([])) == {
        "llm_model": None, "llm_input_tokens": 0, "llm_output_tokens": 0, "embedding_model": None,
        "embedding_tokens": 0,
    }  # fmt: skip
    unknown = ModelSums("llm", "local", Totals(llm_requests=1, unknown_requests=1))
    assert views.token_usage([unknown]).llm_model is None


def test_the_model_that_used_most_tokens_is_named():
    parts = [
        ModelSums("llm", "small", Totals(llm_input_tokens=4, total_tokens=4)),
        ModelSums("llm", "large", Totals(llm_input_tokens=5, llm_output_tokens=1, total_tokens=6)),
        ModelSums("llm", "small", Totals(llm_input_tokens=3, total_tokens=3)),
        ModelSums("embedding", "emb", Totals(embedding_tokens=90, total_tokens=90)),
    ]
    shown = views.token_usage(parts)
    assert (shown.llm_model, shown.llm_input_tokens, shown.llm_output_tokens) == ("small", 12, 1)
    assert (shown.embedding_model, shown.embedding_tokens) == ("emb", 90)


def test_metrics_derive_what_langfuse_shows():
    totals = Totals(
        llm_requests=2, llm_input_tokens=7648, llm_output_tokens=7831, llm_cached_input_tokens=5632,
        llm_reasoning_output_tokens=6528,
    )  # fmt: skip
    assert msgspec.to_builtins(views.metrics(totals, NO_DETAILS, "gpt-5-mini-2025-08-07")) == {
        "prompt_tokens": 7648, "completion_tokens": 7831, "total_tokens": 15479, "cached_tokens": 5632,
        "input_cached_tokens": 5632, "input_audio_tokens": 0, "output_reasoning_tokens": 6528,
        "output_audio_tokens": 0, "output_accepted_prediction_tokens": 0, "output_rejected_prediction_tokens": 0,
        "call_count": 2, "model": "gpt-5-mini-2025-08-07", "input_usage": 7648, "input": 2016,
        "output_usage": 7831, "output": 1303, "total_usage": 15479,
    }  # fmt: skip


def test_failed_and_refused_calls_are_no_calls_that_used_something():
    """Five attempts: two ended well, one was refused here, two failed at the provider."""
    details = SimpleNamespace(**{**vars(NO_DETAILS), "attempts": 5})
    shown = views.metrics(Totals(llm_requests=5, errors=3, llm_input_tokens=10), details, None)
    assert (shown.call_count, shown.prompt_tokens) == (2, 10)


def test_langfuse_lists_names_and_figures_in_the_documented_order():
    totals = Totals(
        llm_requests=2, llm_input_tokens=200, llm_output_tokens=150, llm_cached_input_tokens=50,
        llm_reasoning_output_tokens=75,
    )  # fmt: skip
    assert views.langfuse(views.metrics(totals, NO_DETAILS, "gpt-4o-mini")) == (
        "Input usage\n200\ninput_cached_tokens\n50\ninput\n150\ninput_audio_tokens\n0\n"
        "Output usage\n150\noutput_reasoning_tokens\n75\noutput\n75\noutput_accepted_prediction_tokens\n0\n"
        "output_audio_tokens\n0\noutput_rejected_prediction_tokens\n0\nTotal usage\n350\n"
    )


def test_summed_is_the_sum_of_the_parts():
    a, b = Totals(requests=1, cost_nusd=5), Totals(requests=2, total_tokens=7)
    assert views.summed([a, b]) == Totals(requests=3, cost_nusd=5, total_tokens=7)
    assert views.summed([]) == Totals()


def test_a_sum_less_some_of_its_parts_is_the_rest():
    one, two = Totals(requests=2, cost_nusd=7, llm_input_tokens=10), Totals(requests=1, cost_nusd=-2)
    rest = Totals(requests=5, errors=1, cost_nusd=40)
    assert views.less(views.summed([one, two, rest]), [one, two]) == rest
    assert views.less(rest, []) == rest
