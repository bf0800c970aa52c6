"""The short cuts for OpenAI's own shapes read just what the meters read."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from present import present
from taximeter.flavors.chat import CHAT
from taximeter.flavors.dialects import EMBEDDINGS, UNMETERED
from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.usage import openai as openai_usage
from taximeter.flavors.usage import usual

NO_COUNTS = (
    "input_tokens", "output_tokens", "response_model", "upstream_request_id", "service_tier", "failed", "finished",
    "usage", "inconsistent", "impossible", "bare", "priced_in_part", "plain",
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
    return msgspec.structs.replace(reading, bare=False, plain=False)


@given(usages | usages.map(with_total), st.sampled_from(["openai", "xai", "google", "perplexity"]))
def test_the_short_cut_agrees_with_the_rules(usage, provider):
    quick = usual.chat_usage(msgspec.json.encode(usage), provider)
    assert quick is None or figures(quick) == openai_usage.read(usage, provider, "m")


def test_the_usual_shape_takes_the_short_cut():
    usage: dict[str, object] = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    usage["prompt_tokens_details"] = {"cached_tokens": 3, "audio_tokens": 0}
    usage["completion_tokens_details"] = {"reasoning_tokens": 2, "accepted_prediction_tokens": None}
    quick = usual.chat_usage(msgspec.json.encode(usage), "openai")
    assert quick is not None
    assert figures(quick) == openai_usage.read(usage, "openai", "m")


USUAL = [
    {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
    {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "prompt_tokens_details": {"cached_tokens": 3}},
    {"prompt_tokens": 9, "total_tokens": 9},
    {"prompt_tokens": 9},
]
FLAVORS, STATUSES = st.sampled_from([CHAT, EMBEDDINGS, UNMETERED]), st.sampled_from([200, 201, 400])
answers = st.fixed_dictionaries(
    {
        "usage": usages | usages.map(with_total) | st.sampled_from(USUAL) | st.none(),
        "model": st.just("m") | st.text(max_size=3) | st.just("m" * 3000) | st.none(),
    },
    optional={
        "id": st.just("c") | st.text(max_size=3) | st.integers(),
        "service_tier": st.sampled_from(["default", None, 1]),
        "error": st.sampled_from([None, {}, {"message": "no"}]),
        "type": st.sampled_from([None, "error"]),
        "x_groq": st.sampled_from([None, {"usage": {"prompt_tokens": 1}}]),
        "choices": st.sampled_from([[], None, [{"usage": {"prompt_tokens": 7}}]]),
    },
)


ODD = (
    b'"usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11}',
    b'"usage":{"prompt_tokens":5,"total_tokens":5}',
    b'"usage":{"prompt_tokens":5,"prompt_tokens":7,"total_tokens":7}',
    b'"usage":{"prompt_tokens":5,\r\n "completion_tokens":6 ,"total_tokens":11}',
    b'"usage":{"prompt_tokens":5,"total_tokens":5' + b" " * 20_000 + b"}",
    b'"usage":{' + b'"prompt_tokens":5,' * 1_000 + b'"completion_tokens":6,"total_tokens":11}',
    b'"usage":null',
    b'"us\\u0061ge":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}',
    b'"model":"other"',
    b'"model":"\\ud800"',
    b'"model":"\xff"',
    b'"id":"1"',
    b'"id":""',
    b'"service_tier":"flex"',
    b'"input_token_count":3',
    b'"model_id":"n"',
    b'"base_resp":{"status_code":1}',
    b'"result":{"usage":{"prompt_tokens":2,"total_tokens":2}}',
    b'"data":[{"usage":1}]',
    b'"choices":[{"message":{"content":"\xff"}}]',
    b'"choices":[{"usage":{"prompt_tokens":9}}]',
    b'"choices":' + b"[" * 5_000 + b"]" * 5_000,
    b'"error":"no"',
    b'"object":"error"',
    b'"type":null',
    b'"n":1e999',
)


@pytest.mark.parametrize("flavor", [CHAT, EMBEDDINGS], ids=["chat", "embeddings"])
def test_a_body_that_no_encoder_writes_reads_the_same_by_the_short_cut_and_by_a_meter(flavor):
    head = Answer(status=200, content_type=b"application/json")
    short = 0
    for odd in itertools.permutations(ODD, 2):
        short += same_by_meter(flavor, head, b'{"model":"m",' + b",".join(odd) + b"}")
    assert short > 50
    for before, after in itertools.product((b"", b"\xef\xbb\xbf", b"\r\n "), (b"", b"\n", b"\n{}", b"\0", b"}")):
        same_by_meter(flavor, head, before + b'{"model":"m",' + ODD[flavor is EMBEDDINGS] + b"}" + after)


@pytest.mark.parametrize(
    "kind",
    [b"", b"text/event-stream", b"application/x-ndjson", b"application/json; charset=latin-1", b"application/json;x=y"],
)
def test_only_plain_json_takes_the_short_cut(kind):
    body = b'{"model":"m","usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}'
    assert CHAT.whole(Prepared(body=b""), Answer(status=200, content_type=kind), "openai", body) is None


HEADERS = [
    [],
    [(b"x-request-id", b"req-1")],
    [(b"request-id", b""), (b"x-litellm-response-cost", b"0.01")],
    [(b"content-encoding", b"gzip")],
]


@given(
    answers, st.sampled_from([CHAT, EMBEDDINGS, UNMETERED]), st.sampled_from(HEADERS), st.sampled_from([200, 201, 400])
)
def test_a_whole_answer_reads_the_same_by_the_short_cut_and_by_a_meter(answer, flavor, headers, status):
    head = Answer(status=status, content_type=b"application/json", headers=headers)
    same_by_meter(flavor, head, msgspec.json.encode(answer))


def same_by_meter(flavor, head, body):
    """Whether the short cut was taken; then it must have read what a meter reads."""
    prepared = Prepared(body=b"", embedding_inputs=2)
    quick = flavor.whole(prepared, head, "openai", body)
    if quick is None:
        return False
    meter = flavor.meter(prepared, head, "openai")
    meter.feed(body)
    meter.finish()
    assert msgspec.structs.replace(figures(quick), embedding_inputs=2) == meter.reading()
    return True


def test_the_usual_answers_take_the_short_cut():
    head = Answer(status=200, content_type=b"application/json")
    chat = b'{"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}'
    embedded = b'{"object":"list","data":[],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}'
    assert present(CHAT.whole(Prepared(body=b""), head, "openai", chat)).output_tokens == 1
    assert present(EMBEDDINGS.whole(Prepared(body=b""), head, "openai", embedded)).input_tokens == 3
