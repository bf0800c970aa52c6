"""A call's cost, line by line: together what the call cost, by whatever card."""

from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from control_plane import embedding, record
from taximeter.core.prices import Card, Rates, Sized, cost_nusd
from taximeter.exports import itemised
from taximeter.exports.itemised import CALLS, lines, sum_nusd

COUNT = st.integers(0, 10**6)
RATE = st.none() | st.integers(0, 10**8)
RATES = st.builds(Rates, **{name: RATE for name in Rates.__struct_fields__ if name != "min_audio_s"},
                  min_audio_s=st.none() | st.integers(1, 60))  # fmt: skip
MAYBE = st.none() | COUNT
USAGE = st.sampled_from(
    [
        b"null",
        b'{"input_tokens_details":{"cached_tokens_details":{"audio_tokens":3,"image_tokens":2}}}',
        b'{"output_tokens_details":{"image_tokens":4,"video_tokens":1},"citation_tokens":9}',
        b'{"promptTokensDetails":[{"modality":"VIDEO","tokenCount":7}]}',
    ]
).map(msgspec.Raw)
COUNTS = (
    "input_tokens", "cached_input_tokens", "cache_write_input_tokens", "cache_write_input_tokens_1h",
    "cache_write_input_tokens_5m", "audio_input_tokens", "image_input_tokens", "output_tokens",
    "reasoning_output_tokens", "audio_output_tokens", "search_units", "web_search_requests", "file_search_requests",
    "code_interpreter_sessions", "maps_requests", "image_generations", "images", "input_characters", "pages",
    "annotated_pages", "video_input_tokens", "cached_audio_input_tokens", "image_output_tokens",
)  # fmt: skip
SECONDS = st.none() | st.floats(0, 10**4).map(lambda seconds: round(seconds, 6))
FIGURES = st.fixed_dictionaries(
    dict.fromkeys(COUNTS, MAYBE) | {"usage": USAGE, "seconds": SECONDS, "video_seconds": SECONDS}
)


@given(rates=RATES, higher=RATES, start=COUNT, figures=FIGURES)
def test_the_lines_add_up_to_the_cost_to_the_nano_dollar(rates, higher, start, figures):
    call, card = record(1, **figures), Card(ref="r", rates=rates, above=((start, higher),))
    cost = cost_nusd(card, call)
    if cost is not None:
        assert sum_nusd(lines(card, call)) == cost


def test_each_kind_of_token_has_a_line_at_its_rate():
    rates = Rates(input=3, cached_input=1, cache_write=4, cache_write_1h=6, output=15)
    call = record(1, input_tokens=100, cached_input_tokens=20, cache_write_input_tokens=30,
                  cache_write_input_tokens_1h=10, output_tokens=50)  # fmt: skip
    found = {line.meter.name: (line.used, line.rate) for line in lines(Card(ref="r", rates=rates), call)}
    assert found == {
        "Input Tokens": (50, 3), "Cache Read Input Tokens": (20, 1), "Cache Write Input Tokens": (20, 4),
        "1 Hour Cache Write Input Tokens": (10, 6), "Output Tokens": (50, 15),
    }  # fmt: skip


def test_a_least_length_of_audio_is_billed_and_the_real_one_told():
    card = Card(ref="r", rates=Rates(audio_hour=3_600, min_audio_s=10))
    call = record(1, input_tokens=None, output_tokens=None, seconds=2.5)
    (line,) = lines(card, call)
    assert (line.used, line.priced, sum_nusd([line])) == (Decimal("2.5"), 10, cost_nusd(card, call))


def test_images_are_at_the_rate_of_their_size():
    large = Sized(("1x2",), (), Rates(image=80))
    card = Card(ref="r", rates=Rates(), sized=(large, Sized((), (), Rates(image=40))))
    call = record(1, input_tokens=None, output_tokens=None, images=3)
    for size, rate in (("1x2", 80), (None, 40)):
        (line,) = lines(card, msgspec.structs.replace(call, media_size=size))
        assert (line.meter.name, line.used, line.rate) == ("Images", 3, rate)


def test_what_is_free_is_told_at_nothing_and_what_is_unknown_as_a_call():
    free = lines(Card(ref="r", rates=Rates(), free=True), embedding(1))
    assert [(line.used, line.rate) for line in free] == [(16, 0)] and sum_nusd(free) == 0
    nothing = record(1, input_tokens=None, output_tokens=None, cached_input_tokens=None)
    assert [(line.meter, line.rate) for line in itemised.unpriced(nothing)] == [(CALLS, None)]
