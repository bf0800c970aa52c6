"""Rate cards: the arithmetic, against hand-made bills and as properties."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.core.bounds import MAX_COST_NUSD
from taximeter.core.modalities import Modalities, modalities
from taximeter.core.prices import Card, Rates, Span, card_at, cost_nusd
from taximeter.core.record import Operation, Outcome, Record
from taximeter.core.usage import MAX_COUNT
from taximeter.pricebook.book import plain

USD_PER_MTOK = 1_000_000  # pico-USD per token of a price of 1 USD per million tokens
DAY_US = 86_400_000_000


def record(**figures: object) -> Record:
    fixed = {
        "request_id": "r",
        "started_at": 0,
        "ended_at": 0,
        "workspace": "w",
        "upstream": "u",
        "provider": "p",
        "api": "chat",
        "operation": Operation.LLM,
        "outcome": Outcome.OK,
    }
    return msgspec.convert({**fixed, **figures}, Record)


def card(above: tuple[tuple[int, Rates], ...] = (), **rates: int) -> Card:
    return Card(ref="test", rates=Rates(**rates), above=above)


def raw(usage: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(usage))


GPT = card(input=150_000, cached_input=75_000, output=600_000)
CLAUDE = card(
    input=3 * USD_PER_MTOK,
    cached_input=300_000,
    cache_write=3_750_000,
    cache_write_1h=6 * USD_PER_MTOK,
    output=15 * USD_PER_MTOK,
)


@pytest.mark.parametrize(
    ("rates", "figures", "nusd"),
    [
        (GPT, {"input_tokens": 1000, "output_tokens": 300}, 330_000),
        (GPT, {"input_tokens": 1000, "cached_input_tokens": 200, "output_tokens": 300}, 315_000),
        (GPT, {"input_tokens": 0, "output_tokens": 0}, 0),
        (GPT, {"input_tokens": 100, "reasoning_output_tokens": 90, "output_tokens": 100}, 75_000),
        (
            CLAUDE,
            {
                "input_tokens": 1000,
                "cached_input_tokens": 100,
                "cache_write_input_tokens": 600,
                "cache_write_input_tokens_5m": 200,
                "cache_write_input_tokens_1h": 400,
                "output_tokens": 10,
            },
            300 * 3000 + 100 * 300 + 200 * 3750 + 400 * 6000 + 10 * 15000,
        ),
        (
            CLAUDE,
            {
                "input_tokens": 500,
                "cache_write_input_tokens_5m": 200,
                "cache_write_input_tokens_1h": 100,
                "output_tokens": 0,
            },
            200 * 3000 + 200 * 3750 + 100 * 6000,
        ),
        (card(search_unit=2 * 10**9), {"operation": "rerank", "search_units": 3}, 6_000_000),
        (card(search_unit=2 * 10**9), {"operation": "rerank", "search_units": 1, "input_tokens": 70}, 2_000_000),
        (card(input=50_000), {"operation": "rerank", "input_tokens": 1000}, 50_000),
        (card(input=20_000), {"operation": "embedding", "input_tokens": 1000, "output_tokens": 0}, 20_000),
        (card(input=20_000), {"operation": "embedding", "input_tokens": 1000}, 20_000),
        (card(audio_hour=360_000_000_000), {"operation": "other", "seconds": 2.5}, 250_000),
        (card(audio_hour=111_000_000_000, min_audio_s=10), {"operation": "other", "seconds": 1.0}, 308_333),
        (card(audio_hour=111_000_000_000, min_audio_s=10), {"operation": "other", "seconds": 0.0}, 0),
        (card(request=5_000_000_000, input=10**6, output=10**6), {"input_tokens": 1, "output_tokens": 1}, 5_002_000),
        (card(request=5_000_000_000), {"operation": "other"}, 5_000_000),
        (
            card(input=10**6, output=10**6, web_search=10**10),
            {"input_tokens": 1, "output_tokens": 1, "web_search_requests": 2},
            20_002_000,
        ),
        (
            card(input=10**6, audio_input=40 * 10**6, output=10**6, audio_output=80 * 10**6),
            {"input_tokens": 100, "audio_input_tokens": 60, "output_tokens": 50, "audio_output_tokens": 30},
            40_000 + 60 * 40_000 + 20_000 + 30 * 80_000,
        ),
        (
            card(input=10**6, output=2 * 10**6, reasoning_output=10**6, citation=3 * 10**6),
            {
                "input_tokens": 0,
                "output_tokens": 10,
                "reasoning_output_tokens": 4,
                "usage": raw({"citation_tokens": 100}),
            },
            6 * 2000 + 4 * 1000 + 100 * 3000,
        ),
        (
            card(input=10**6, output=10**6, image_output=30 * 10**6),
            {
                "input_tokens": 5,
                "output_tokens": 1300,
                "usage": raw({"candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}]}),
            },
            5_000 + 10_000 + 1290 * 30_000,
        ),
        (
            card(input=4 * 10**6, cached_input=10**6, audio_input=32 * 10**6, cached_audio_input=400_000, output=0),
            {
                "input_tokens": 100,
                "cached_input_tokens": 50,
                "audio_input_tokens": 40,
                "output_tokens": 0,
                "usage": raw({"input_token_details": {"cached_tokens_details": {"audio_tokens": 30}}}),
            },
            # 30 cached audio, 20 cached text, 10 fresh audio, 40 fresh text
            30 * 400 + 20 * 1000 + 10 * 32_000 + 40 * 4000,
        ),
        (Card(ref="free", rates=Rates(), free=True), {"operation": "rerank", "search_units": 1}, 0),
    ],
)
def test_a_bill_made_by_hand(rates: Card, figures: dict[str, object], nusd: int) -> None:
    assert cost_nusd(rates, record(**figures)) == nusd


@pytest.mark.parametrize(
    ("rates", "figures"),
    [
        (GPT, {}),
        (GPT, {"input_tokens": 10}),
        (GPT, {"output_tokens": 10}),
        (card(input=1), {"input_tokens": 10, "output_tokens": 10}),
        (card(output=1), {"input_tokens": 10, "output_tokens": 10}),
        (card(search_unit=1), {"operation": "rerank", "input_tokens": 10}),
        (card(search_unit=1, input=1), {"operation": "rerank", "input_tokens": 10}),
        (card(audio_hour=1), {"operation": "other", "input_tokens": 10}),
        (card(request=1), {"operation": "other", "outcome": "upstream_error"}),
        (Card(ref="free", rates=Rates(), free=True), {}),
        # more reasoning than output: the parts contradict the whole
        (
            card(input=1, output=1, reasoning_output=2),
            {"input_tokens": 1, "output_tokens": 1, "reasoning_output_tokens": 2},
        ),
        # which of the audio tokens were cached is not told, and the card prices it
        (
            card(input=1, cached_input=1, audio_input=2, cached_audio_input=3, output=1),
            {"input_tokens": 9, "cached_input_tokens": 2, "audio_input_tokens": 3, "output_tokens": 0},
        ),
        # audio and cached tokens overlap for certain, nobody tells by how much
        (
            card(input=1, cached_input=1, audio_input=2, output=1),
            {"input_tokens": 9, "cached_input_tokens": 6, "audio_input_tokens": 6, "output_tokens": 0},
        ),
        (card(input=1, output=1, image_output=2), {"api": "images", "input_tokens": 1, "output_tokens": 9}),
        (card(input=1, output=1, image_output=2), {"api": "generate", "input_tokens": 1, "output_tokens": 9}),
    ],
)
def test_a_bill_that_cannot_be_made_whole_is_unknown(rates: Card, figures: dict[str, object]) -> None:
    assert cost_nusd(rates, record(**figures)) is None


def test_gemini_tells_every_kind_of_token_there_is() -> None:
    told = raw({"candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 9}]})
    both = card(input=1_000, output=1_000, image_output=2_000)
    assert cost_nusd(both, record(api="generate", input_tokens=1, output_tokens=9, usage=told)) == 10


def test_time_stands_in_for_tokens_where_both_are_priced() -> None:
    both = card(input=100_000, output=400_000, audio_hour=240_000_000_000)
    assert cost_nusd(both, record(seconds=3600.0)) == 240_000_000
    assert cost_nusd(both, record(input_tokens=10, output_tokens=10)) == 5_000


def test_cached_tokens_beyond_the_input_are_charged_and_the_fresh_rest_is_nothing() -> None:
    figures = record(input_tokens=10, cached_input_tokens=161, output_tokens=0)
    assert cost_nusd(GPT, figures) == 161 * 75


def test_a_tier_applies_to_all_tokens_once_the_input_exceeds_its_start() -> None:
    tiered = card(above=((200, Rates(input=20_000, output=40_000)),), input=10_000, output=30_000)
    assert cost_nusd(tiered, record(input_tokens=200, output_tokens=100)) == 2_000 + 3_000
    assert cost_nusd(tiered, record(input_tokens=201, output_tokens=100)) == 4_020 + 4_000


def test_half_a_nano_usd_rounds_up_once() -> None:
    assert [cost_nusd(card(input=250, output=0), record(input_tokens=n, output_tokens=0)) for n in (1, 2, 3)] == [
        0,
        1,
        1,
    ]


COUNT = st.integers(0, MAX_COUNT)
RATE = st.integers(0, 10**12)


@settings(deadline=None)
@given(tokens=COUNT, cached=COUNT, output=COUNT, rates=st.tuples(RATE, RATE, RATE))
def test_cost_is_the_exact_sum_rounded_once(tokens: int, cached: int, output: int, rates: tuple[int, int, int]) -> None:
    cached = min(cached, tokens)
    priced = card(input=rates[0], cached_input=rates[1], output=rates[2])
    exact = Decimal((tokens - cached) * rates[0] + cached * rates[1] + output * rates[2]) / 1000
    with_context = exact.quantize(Decimal(1), rounding=ROUND_HALF_UP) if exact < 10**27 else None
    found = cost_nusd(priced, record(input_tokens=tokens, cached_input_tokens=cached, output_tokens=output))
    assert found is not None
    assert abs(found - min(exact, Decimal(MAX_COST_NUSD))) <= Decimal("0.5")
    assert with_context is None or found == min(with_context, MAX_COST_NUSD)


FIGURES = {
    name: st.none() | st.integers(0, 50) | COUNT
    for name in (
        "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_input_tokens",
        "cache_write_input_tokens_5m", "cache_write_input_tokens_1h", "audio_input_tokens", "image_input_tokens",
        "reasoning_output_tokens", "audio_output_tokens", "search_units", "web_search_requests",
    )
}  # fmt: skip
rates_of_any_kind = st.builds(
    Rates, **{name: st.none() | st.integers(0, 10**9) for name in ("input", "cached_input", "output")}
) | st.builds(Rates, **{name: st.none() | st.integers(0, 10**9) for name in Rates.__struct_fields__})
cards = st.builds(
    Card,
    ref=st.just("test"),
    rates=rates_of_any_kind,
    above=st.just(()) | st.tuples(st.tuples(COUNT, rates_of_any_kind)),
    free=st.sampled_from([False, False, True]),
    same_as=st.sampled_from([None, None, ("p", "*")]),
)
spans = st.builds(Span, from_us=st.integers(0, 10), cards=st.tuples(st.none() | cards)) | st.builds(
    Span, from_us=st.integers(0, 10), cards=st.tuples(cards, cards), starts_s=st.just((0, 3600))
)


@settings(deadline=None)
@given(
    schedule=st.lists(spans, max_size=2).map(lambda found: tuple(sorted(found, key=lambda span: span.from_us))),
    figures=st.fixed_dictionaries({}, optional=FIGURES),
    ended_at=st.integers(0, 12),
    operation=st.sampled_from(Operation),
    outcome=st.sampled_from(Outcome),
    api=st.sampled_from(["chat", "images", "rerank"]),
)
def test_the_plain_formula_charges_what_the_card_charges(
    schedule: tuple[Span, ...],
    figures: dict[str, object],
    ended_at: int,
    operation: Operation,
    outcome: Outcome,
    api: str,
) -> None:
    quick = plain(schedule)
    if quick is None:
        return
    used = record(**figures, ended_at=ended_at, operation=operation, outcome=outcome, api=api)
    found = quick.cost_nusd(used)
    if found is None:
        return
    at_the_time = card_at(schedule, ended_at)
    assert at_the_time is not None
    assert (found, quick.ref) == (cost_nusd(at_the_time, used), at_the_time.ref)


@pytest.mark.parametrize("priced", [GPT, card(input=1, output=2), card(input=0, cached_input=7, output=0)])
@settings(deadline=None)
@given(tokens=COUNT, cached=st.none() | COUNT, output=COUNT, ended_at=st.integers(5, 10))
def test_a_call_of_known_input_and_output_needs_no_card_where_its_price_is_plain(
    priced: Card, tokens: int, cached: int | None, output: int, ended_at: int
) -> None:
    quick = plain((Span(from_us=5, cards=(priced,)),))
    assert quick is not None
    within = cached if cached is None else min(cached, tokens)
    used = record(input_tokens=tokens, cached_input_tokens=within, output_tokens=output, ended_at=ended_at)
    assert quick.cost_nusd(used) == cost_nusd(priced, used) is not None


@settings(deadline=None)
@given(tokens=st.integers(0, MAX_COUNT // 2), more=st.integers(0, 10**6), output=st.integers(0, MAX_COUNT // 2))
def test_more_tokens_never_cost_less(tokens: int, more: int, output: int) -> None:
    less = cost_nusd(GPT, record(input_tokens=tokens, output_tokens=output))
    greater = cost_nusd(GPT, record(input_tokens=tokens + more, output_tokens=output + more))
    assert less is not None
    assert greater is not None
    assert less <= greater


def test_the_card_of_the_day_and_of_the_hour() -> None:
    early, night, day = (Card(ref=name, rates=Rates()) for name in ("early", "night", "day"))
    schedule = (Span(DAY_US, (early,)), Span(3 * DAY_US, (night, day, None), (0, 6 * 3600, 18 * 3600)))
    hour = 3_600_000_000
    assert card_at(schedule, DAY_US - 1) is None
    assert card_at(schedule, DAY_US) is early
    assert card_at(schedule, 3 * DAY_US - 1) is early
    assert card_at(schedule, 3 * DAY_US) is night
    assert card_at(schedule, 3 * DAY_US + 6 * hour) is day
    assert card_at(schedule, 9 * DAY_US + 18 * hour - 1) is day
    assert card_at(schedule, 9 * DAY_US + 18 * hour) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["tokenCount", "modality", "audio_tokens"]), inner),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["input_tokens_details", "cacheTokensDetails", "citation_tokens"]), JSON))
def test_any_usage_object_can_be_looked_at(usage: dict[str, object]) -> None:
    assert isinstance(modalities(raw(usage)), Modalities)


@pytest.mark.parametrize("usage", [b"null", b"", b"[", b"\xff", b"[" * 100_000])
def test_an_unreadable_usage_object_tells_nothing(usage: bytes) -> None:
    assert modalities(msgspec.Raw(usage)) == Modalities()


def test_a_cost_beyond_belief_is_cut_in_every_formula() -> None:
    used = record(input_tokens=MAX_COUNT, output_tokens=MAX_COUNT, seconds=1.0, web_search_requests=None)
    dear: dict[str, Any] = {"input": 10**12, "output": 10**12}
    quick = plain((Span(0, (card(**dear),)),))
    assert quick is not None
    assert quick.cost_nusd(used) == cost_nusd(card(**dear), used) == MAX_COST_NUSD
    assert cost_nusd(card(**dear, audio_hour=10**15), used) == MAX_COST_NUSD


@pytest.mark.parametrize(
    "schedule",
    [
        (),
        (Span(0, (None,)),),
        (Span(0, (card(input=1, output=1),)), Span(DAY_US, (card(input=2, output=2),))),
        (Span(0, (card(input=1),)),),
        (Span(0, (card(output=1),)),),
        (Span(0, (card(input=1, output=1, audio_hour=1),)),),
        (Span(0, (msgspec.structs.replace(card(input=1, output=1), free=True),)),),
    ],
)
def test_only_one_card_of_input_and_output_is_priced_the_quick_way(schedule: tuple[Span, ...]) -> None:
    assert plain(schedule) is None


@pytest.mark.parametrize(
    "used",
    [
        {"input_tokens": None, "output_tokens": 1},
        {"input_tokens": 1, "output_tokens": None},
        {"input_tokens": 1, "output_tokens": 1, "cached_input_tokens": 2},
        {"input_tokens": 1, "output_tokens": 1, "ended_at": DAY_US - 1},
        {"input_tokens": 1, "output_tokens": 1, "web_search_requests": 1},
    ],
)
def test_the_quick_way_leaves_what_it_cannot_price_to_the_card(used: dict[str, object]) -> None:
    quick = plain((Span(DAY_US, (card(input=1_000, output=1_000),)),))
    assert quick is not None
    assert quick.cost_nusd(record(**{"ended_at": DAY_US, **used})) is None
    assert quick.cost_nusd(record(input_tokens=2, output_tokens=1, ended_at=DAY_US)) == 3


def test_what_is_listed_by_modality_is_counted_where_it_is_an_amount() -> None:
    listed = [{"modality": "AUDIO", "tokenCount": 3}, {"modality": "audio", "tokenCount": 4}, {"modality": "AUDIO"},
              {"modality": 7, "tokenCount": 5}, "AUDIO"]  # fmt: skip
    assert modalities(raw({"cacheTokensDetails": listed})).cached_audio_tokens == 7


def test_pages_are_paid_by_what_was_done_with_them_or_not_at_all() -> None:
    plain_pages, both = card(page=10**9), card(page=10**9, annotated_page=3 * 10**9)
    read, described = {"pages": 3}, {"pages": 3, "annotated_pages": 2}
    costs = [
        cost_nusd(one, record(**used, operation="other")) for one in (plain_pages, both) for used in (read, described)
    ]
    assert costs == [3 * 10**6, None, 3 * 10**6, 7 * 10**6]
