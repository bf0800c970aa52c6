"""The short cuts for OpenAI's own shapes read just what the meters read."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from taximeter.flavors import openai_usage
from taximeter.flavors.chat import CHAT
from taximeter.flavors.embeddings import EMBEDDINGS
from taximeter.flavors.meter import Answer, Prepared

NO_COUNTS = (
    "input_tokens", "output_tokens", "response_model", "upstream_request_id", "service_tier", "failed", "finished",
    "usage", "inconsistent", "bare",
)  # fmt: skip

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


def figures(reading):
    """Without the note on how it was read; and that note is true."""
    counts = [name for name in reading.__struct_fields__ if name not in NO_COUNTS]
    assert not reading.bare or all(getattr(reading, name) is None for name in counts)
    return msgspec.structs.replace(reading, bare=False)


@given(usages | usages.map(with_total), st.sampled_from(["openai", "xai", "google", "perplexity"]))
def test_the_short_cut_agrees_with_the_rules(usage, provider):
    quick = openai_usage.plain(msgspec.json.encode(usage), provider)
    assert quick is None or figures(quick) == openai_usage.read(usage, provider, "m")


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


HEADERS = [
    [],
    [(b"x-request-id", b"req-1")],
    [(b"request-id", b""), (b"x-litellm-response-cost", b"0.01")],
    [(b"content-encoding", b"gzip")],
]


@given(answers, st.sampled_from([CHAT, EMBEDDINGS]), st.sampled_from(HEADERS), st.sampled_from([200, 201, 400]))
def test_a_whole_answer_reads_the_same_by_the_short_cut_and_by_a_meter(answer, flavor, headers, status):
    body = msgspec.json.encode(answer)
    prepared = Prepared(body=b"", embedding_inputs=2)
    head = Answer(status=status, content_type=b"application/json", headers=headers)
    quick = flavor.whole(prepared, head, "openai", body)
    if quick is None:
        return
    meter = flavor.meter(prepared, head, "openai")
    meter.feed(body)
    meter.finish()
    assert figures(msgspec.structs.replace(quick, embedding_inputs=2)) == meter.reading()


def test_the_usual_answers_take_the_short_cut():
    head = Answer(status=200, content_type=b"application/json")
    chat = b'{"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}'
    embedded = b'{"object":"list","data":[],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}'
    assert CHAT.whole(Prepared(body=b""), head, "openai", chat).output_tokens == 1
    assert EMBEDDINGS.whole(Prepared(body=b""), head, "openai", embedded).input_tokens == 3
