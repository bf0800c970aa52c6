"""The short cut for OpenAI's own shape reads just what the general rules read."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from taximeter.flavors import openai_usage
from taximeter.flavors.chat import ChatTally
from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.tally import Tally

number = st.one_of(st.integers(-2, 40), st.none(), st.just(2**40 + 1), st.just(3.0), st.just(True), st.just("3"))
details = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(
            ("cached_tokens", "audio_tokens", "reasoning_tokens", "accepted_prediction_tokens", "cache_write_tokens")
        ),
        number,
    ),
)
usages = st.fixed_dictionaries(
    {"prompt_tokens": number, "completion_tokens": number},
    optional={
        "total_tokens": number,
        "prompt_tokens_details": details,
        "completion_tokens_details": details,
        "cost": st.just(0.5),
    },
)


def with_total(usage):
    into, out = usage["prompt_tokens"], usage["completion_tokens"]
    return {**usage, "total_tokens": into + out} if type(into) is type(out) is int else usage


@given(usages | usages.map(with_total), st.sampled_from(["openai", "xai", "google", "perplexity"]))
def test_the_short_cut_agrees_with_the_rules(usage, provider):
    quick = openai_usage.plain(msgspec.json.encode(usage), provider)
    assert quick is None or quick == openai_usage.read(usage, provider, "m")


def test_the_usual_shape_takes_the_short_cut():
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    usage["prompt_tokens_details"] = {"cached_tokens": 3, "audio_tokens": 0}
    usage["completion_tokens_details"] = {"reasoning_tokens": 2, "accepted_prediction_tokens": None}
    assert openai_usage.plain(msgspec.json.encode(usage), "openai") == openai_usage.read(usage, "openai", "m")


answers = st.fixed_dictionaries(
    {"usage": usages | usages.map(with_total) | st.none()},
    optional={
        "id": st.text(max_size=3) | st.integers(),
        "model": st.text(max_size=3) | st.just("m" * 3000) | st.none(),
        "service_tier": st.sampled_from(["default", None, 1]),
        "error": st.sampled_from([None, {}, {"message": "no"}]),
        "type": st.sampled_from([None, "error"]),
        "x_groq": st.sampled_from([None, {"usage": {"prompt_tokens": 1}}]),
        "choices": st.sampled_from([[], None, [{"usage": {"prompt_tokens": 7}}]]),
    },
)


@given(answers)
def test_a_whole_answer_reads_the_same_by_the_short_cut_and_by_the_rules(answer):
    body = msgspec.json.encode(answer)
    prepared, head = Prepared(body=b""), Answer(status=200)
    quick, ruled = ChatTally(prepared, head, "openai"), ChatTally(prepared, head, "openai")
    quick.whole(body)
    Tally.whole(ruled, body)
    assert quick.reading() == ruled.reading()
