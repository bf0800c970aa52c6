"""The short cut for OpenAI's own shape reads just what the general rules read."""

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from taximeter.flavors import openai_usage

number = st.one_of(st.integers(-2, 40), st.none(), st.just(2**53 + 1), st.just(3.0), st.just(True), st.just("3"))
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
    quick = openai_usage.read(usage, provider, "m")
    with patch.object(openai_usage, "_plain", return_value=None):
        assert openai_usage.read(usage, provider, "m") == quick
