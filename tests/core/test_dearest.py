"""No call within a bound costs more than the bound is priced at."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.core.dearest import Most, dearest_nusd
from taximeter.core.prices import Card, Rates, Sized, cost_nusd
from taximeter.core.record import Operation, Outcome, Record

COUNTS = st.integers(0, 10**7)
RATE = st.none() | st.integers(0, 10**9)
RATES = st.builds(Rates, **dict.fromkeys(set(Rates.__struct_fields__) - {"citation", "min_audio_s"}, RATE))
CARDS = st.builds(
    Card,
    ref=st.just("test"),
    rates=RATES,
    above=st.lists(st.tuples(COUNTS, RATES), max_size=2).map(
        lambda tiers: tuple(sorted(tiers, key=lambda one: one[0]))
    ),
    sized=st.lists(st.builds(Sized, st.just(("", "1x1")), st.sampled_from([(), ("hd",)]), RATES), max_size=2).map(
        tuple
    ),
    free=st.booleans(),
)


@settings(deadline=None, max_examples=400)
@given(card=CARDS, data=st.data())
def test_no_call_within_its_bound_costs_more(card: Card, data: st.DataObject) -> None:
    def up_to(most: int) -> int:
        return data.draw(st.integers(0, most))

    counts = {name: data.draw(COUNTS) for name in Most.__struct_fields__ if name != "writes_cache"}
    most = Most(**counts, writes_cache=data.draw(st.booleans()))
    tokens_in, tokens_out = up_to(most.input_tokens), up_to(most.output_tokens)
    usage = {
        "input_tokens_details": {"cached_tokens_details": {"audio_tokens": up_to(tokens_in)}},
        "output_tokens_details": {"image_tokens": up_to(tokens_out)},
    }
    record = Record(
        request_id="r",
        started_at=0,
        ended_at=0,
        workspace="w",
        upstream="u",
        provider="p",
        api="chat",
        operation=Operation.LLM,
        outcome=Outcome.OK,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cached_input_tokens=up_to(tokens_in),
        cache_write_input_tokens=up_to(tokens_in) if most.writes_cache else 0,
        audio_input_tokens=up_to(tokens_in),
        reasoning_output_tokens=up_to(tokens_out),
        search_units=up_to(most.search_units),
        images=up_to(most.images),
        input_characters=up_to(most.characters),
        pages=up_to(most.pages),
        video_seconds=float(up_to(most.video_seconds)),
        media_size=data.draw(st.sampled_from(["", "1x1"])),
        seconds=float(up_to(most.seconds)),
        usage=msgspec.Raw(msgspec.json.encode(usage)),
    )
    record.cache_write_input_tokens_1h = up_to(record.cache_write_input_tokens or 0)
    setattr(record, data.draw(st.sampled_from(["web_search_requests", "image_generations"])), up_to(most.web_searches))
    cost = cost_nusd(card, record)
    assert cost is None or cost <= dearest_nusd(card, most)
