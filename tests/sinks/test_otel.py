"""The OpenTelemetry sink against a real OTLP/HTTP receiver that decodes the protobuf it is sent."""

import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closing import closed
from collector import Collector, plain
from control_plane import NOON_US, embedding, record
from taximeter.config.settings import OtelSettings
from taximeter.core.errors import ConfigError
from taximeter.core.record import Operation, Outcome
from taximeter.sinks.batch import Batch
from taximeter.sinks.otel import Otel, convention
from taximeter.sinks.otel.sink import MODELS, read_headers


@pytest.fixture
def collector():
    with Collector() as running:
        yield running


async def nothing_before(journal_ids):
    return dict.fromkeys(journal_ids, 0)


def otel(collector, *, opt_in="", **settings):
    environ = {**os.environ, convention.OPT_IN: opt_in}
    return Otel(OtelSettings(endpoint=collector.url, **settings), node="n1", start=nothing_before, environ=environ)


async def deliver(sink, *records, after=0, journal="j1"):
    for seq, each in enumerate(records, start=after + 1):
        each.event_id = f"{journal}:{seq}"
    batch = Batch(journal_id=journal, after=after, upto=after + len(records), records=list(records))
    return await sink.deliver([batch])


async def test_a_call_is_a_span_in_the_words_of_the_convention(collector):
    async with closed(otel(collector)) as sink:
        answered = {"response_model": "gpt-4o-mini-2024-07-18", "upstream_request_id": "chatcmpl-1", "ttft_ms": 100.0}
        call = record(1, stream=True, track="t", task="query", cached_input_tokens=64, **answered)
        assert await deliver(sink, call) == {"j1": 1}
    (span,) = collector.spans
    assert (span.name, span.kind, span.status.code) == ("chat gpt-4o-mini", 3, 0)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (call.started_at * 1_000, call.ended_at * 1_000)
    assert plain(span.attributes) == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18", "gen_ai.request.stream": True,
        "gen_ai.response.id": "chatcmpl-1", "gen_ai.response.time_to_first_chunk": 0.1,
        "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cache_read.input_tokens": 64, "gen_ai.usage.reasoning.output_tokens": 10,
        "http.response.status_code": 200, "taximeter.request_id": "req-1", "taximeter.attempt": 1,
        "taximeter.workspace": "acme", "taximeter.track": "t", "taximeter.task": "query",
        "taximeter.upstream": "openai", "taximeter.outcome": "ok", "taximeter.input_source": "reported",
        "taximeter.output_source": "reported", "taximeter.cost_nusd": 33_000,
    }  # fmt: skip
    assert {"service.name": "taximeter", "service.instance.id": "n1"}.items() <= collector.resource.items()


async def test_what_went_wrong_is_an_error_and_what_is_unknown_is_left_out(collector):
    async with closed(otel(collector)) as sink:
        unknown = {"input_tokens": None, "output_tokens": None, "cost_nusd": None, "duration_ms": None}
        await deliver(
            sink,
            record(1, outcome=Outcome.UPSTREAM_ERROR, status=429, **unknown),
            record(2, outcome=Outcome.TIMEOUT, status=None, error_code="upstream_timeout", **unknown),
            record(3, outcome=Outcome.CLIENT_LEFT),
        )
    errors = {plain(span.attributes)["taximeter.request_id"]: span for span in collector.spans}
    assert [errors[name].status.code for name in ("req-1", "req-2", "req-3")] == [2, 2, 0]
    told = [plain(errors[name].attributes) for name in ("req-1", "req-2")]
    assert [each["error.type"] for each in told] == ["429", "timeout"]
    assert "gen_ai.usage.input_tokens" not in told[0] and "taximeter.cost_nusd" not in told[0]


async def test_metrics_add_up_to_the_records(collector):
    async with closed(otel(collector)) as sink:
        await deliver(sink, record(1), record(2, input_tokens=900), embedding(3), record(4, outcome=Outcome.REFUSED))
    sums, counts = {}, {}
    for point in collector.points["gen_ai.client.token.usage"]:
        attributes = plain(point.attributes)
        key = (attributes["gen_ai.operation.name"], attributes["gen_ai.token.type"])
        sums[key], counts[key] = point.sum, point.count
        assert tuple(point.explicit_bounds) == convention.TOKENS
    assert sums == {("chat", "input"): 1_000, ("chat", "output"): 60, ("embeddings", "input"): 16}
    assert counts == {("chat", "input"): 2, ("chat", "output"): 2, ("embeddings", "input"): 1}
    durations = collector.points["gen_ai.client.operation.duration"]
    assert sum(point.count for point in durations) == 3 and sum(point.sum for point in durations) == 0.75
    assert sum(point.as_int for point in collector.points["taximeter.cost"]) == 2 * 33_000 + 320


async def test_a_batch_counts_once_and_begins_where_history_was(collector):
    async def from_two(journal_ids):
        return dict.fromkeys(journal_ids, 2)

    async with closed(Otel(OtelSettings(endpoint=collector.url), node="n1", start=from_two)) as sink:
        assert await sink.cursors(["j1"]) == {"j1": 2}
        assert await deliver(sink, record(1), record(2)) == {"j1": 2}  # history had these before we began
        assert await deliver(sink, record(3), after=2) == {"j1": 3}
        assert await deliver(sink, record(3), after=2) == {"j1": 3}
        correction = record(4, kind="correction")
        assert await deliver(sink, correction, after=3) == {"j1": 4}
    assert [plain(span.attributes)["taximeter.request_id"] for span in collector.spans] == ["req-3"]


async def test_attempts_share_a_trace_and_a_call_told_twice_is_one_span(collector):
    async with closed(otel(collector, metrics=False)) as sink:
        await deliver(sink, record(1), record(1, attempt=2), record(2))
    async with closed(otel(collector, metrics=False)) as again:
        await deliver(again, record(1))
    first, second, other, repeated = collector.spans
    assert first.trace_id == second.trace_id != other.trace_id and first.span_id != second.span_id
    assert (repeated.trace_id, repeated.span_id) == (first.trace_id, first.span_id)
    assert collector.points == {}


async def test_headers_come_from_the_environment(collector, monkeypatch):
    monkeypatch.setenv("OTLP_KEYS", "x-api-key=secret, x-team = a=b")
    async with closed(otel(collector, headers_env="OTLP_KEYS", metrics=False)) as sink:
        await deliver(sink, record(1))
    told = {name.lower(): value for name, value in collector.headers.items()}
    assert (told["x-api-key"], told["x-team"]) == ("secret", "a=b")


@pytest.mark.parametrize("value", ["novalue", "=x", "a=b,c"])
def test_headers_that_are_none_are_refused_without_being_shown(monkeypatch, value):
    monkeypatch.setenv("OTLP_KEYS", value)
    with pytest.raises(ConfigError, match="not of the form") as refused:
        read_headers("OTLP_KEYS")
    assert value not in str(refused.value)


async def test_made_up_models_do_not_fill_the_collector(collector):
    async with closed(otel(collector, traces=False)) as sink:
        await deliver(sink, *(record(number, request_model=f"m-{number}") for number in range(MODELS + 50)))
    names = {plain(point.attributes)["gen_ai.request.model"] for point in collector.points["taximeter.cost"]}
    assert len(names) == MODELS + 1 and "other" in names
    assert sum(point.as_int for point in collector.points["taximeter.cost"]) == (MODELS + 50) * 33_000


async def test_without_a_collector_delivery_goes_on(caplog):
    async with closed(
        Otel(OtelSettings(endpoint="http://127.0.0.1:9", timeout_s=0.2), node="n1", start=nothing_before)
    ) as sink:
        assert await deliver(sink, record(1, ended_at=NOON_US)) == {"j1": 1}
    assert any("Failed to export" in each.getMessage() for each in caplog.records)


NEW, BOTH = "gen_ai_latest_experimental", "http, gen_ai_latest_experimental/dup"
EARLIER_METRICS = {
    "gen_ai.client.token.usage", "gen_ai.client.operation.duration", "gen_ai.client.operation.time_to_first_chunk",
}  # fmt: skip
LATEST_METRICS = {
    "gen_ai.client.inference.duration", "gen_ai.client.inference.time_to_first_chunk",
    "gen_ai.client.inference.usage.input_tokens", "gen_ai.client.inference.usage.output_tokens",
    "gen_ai.client.inference.usage.cache_read.input_tokens", "gen_ai.client.inference.usage.cache_write.input_tokens",
    "gen_ai.client.inference.usage.reasoning.output_tokens",
    "gen_ai.client.inference.operation.input_tokens", "gen_ai.client.inference.operation.output_tokens",
    "gen_ai.client.embeddings.duration", "gen_ai.client.embeddings.operation.input_tokens",
}  # fmt: skip
HEARD = {"audio_input_tokens": 40, "image_input_tokens": 25, "audio_output_tokens": 12, "cache_write_input_tokens": 5}


def reranked(number):
    return record(number, api="rerank", operation=Operation.RERANK, output_tokens=None)


@pytest.mark.parametrize(
    ("opt_in", "names", "written", "not_written"),
    [
        ("http/dup", EARLIER_METRICS, "cache_creation", "cache_write"),
        (NEW, LATEST_METRICS | {"gen_ai.client.operation.duration"}, "cache_write", "cache_creation"),
        (BOTH, EARLIER_METRICS | LATEST_METRICS, "cache_write", None),
    ],
)
async def test_the_version_of_the_conventions_is_the_one_opted_in_to(collector, opt_in, names, written, not_written):
    async with closed(otel(collector, opt_in=opt_in)) as sink:
        await deliver(sink, record(1, ttft_ms=90.0, stream=True, **HEARD), embedding(2), reranked(3))
    assert set(collector.points) - {"taximeter.cost"} == names
    told = plain(next(span for span in collector.spans if span.name == "chat gpt-4o-mini").attributes)
    assert told[f"gen_ai.usage.{written}.input_tokens"] == 5
    assert f"gen_ai.usage.{not_written}.input_tokens" not in told
    assert ("gen_ai.usage.audio.input_tokens" in told) is (opt_in != "http/dup")
    if opt_in == BOTH:
        assert told["gen_ai.usage.cache_creation.input_tokens"] == 5


async def test_the_latest_counters_add_up_by_modality_and_its_histograms_by_call(collector):
    gemini = msgspec.Raw(b'{"promptTokensDetails":[{"modality":"VIDEO","tokenCount":70}]}')
    async with closed(otel(collector, opt_in=NEW)) as sink:
        await deliver(
            sink,
            record(1, service_tier="flex", **HEARD),
            record(2, usage=gemini),
            record(3, input_tokens=None, output_tokens=None, cached_input_tokens=None, reasoning_output_tokens=None),
            record(4, outcome=Outcome.TIMEOUT),
            embedding(5),
            reranked(6),
        )
    inference = "gen_ai.client.inference"
    sums: dict[tuple[str, object], int] = {}
    for kind in ("input_tokens", "output_tokens", "cache_read.input_tokens", "cache_write.input_tokens"):
        for point in collector.points[f"{inference}.usage.{kind}"]:
            told = plain(point.attributes)
            assert "error.type" not in told
            key = (kind, told["gen_ai.token.modality"])
            sums[key] = sums.get(key, 0) + point.as_int
    assert sums == {
        ("input_tokens", "audio"): 40, ("input_tokens", "image"): 25, ("input_tokens", "video"): 70,
        ("input_tokens", "unknown"): 35 + 30 + 100, ("output_tokens", "audio"): 12,
        ("output_tokens", "unknown"): 18 + 30 + 30, ("cache_read.input_tokens", "unknown"): 60,
        ("cache_write.input_tokens", "unknown"): 5,
    }  # fmt: skip
    inputs = collector.points[f"{inference}.operation.input_tokens"]
    assert sum(point.count for point in inputs) == 3 and sum(point.sum for point in inputs) == 300
    assert sorted(plain(point.attributes).get("error.type", "") for point in inputs) == ["", "timeout"]
    assert {tuple(point.explicit_bounds) for point in inputs} == {convention.TOKENS}
    (embedded,) = collector.points["gen_ai.client.embeddings.operation.input_tokens"]
    assert (embedded.sum, embedded.count) == (16, 1)
    assert [
        plain(p.attributes)["gen_ai.operation.name"] for p in collector.points["gen_ai.client.operation.duration"]
    ] == ["rerank"]
    assert sum(point.count for point in collector.points[f"{inference}.duration"]) == 4
    tiers = [plain(span.attributes).get("openai.response.service_tier") for span in collector.spans]
    assert tiers[0] == "flex" and set(tiers[1:]) == {None}


@given(st.integers(0, 10**9), st.lists(st.none() | st.integers(0, 10**9), min_size=3, max_size=3))
def test_the_modalities_of_a_figure_are_always_the_whole_figure(whole, parts):
    found = convention.by_modality(whole, audio=parts[0], image=parts[1], video=parts[2])
    assert sum(found.values()) == whole and found
    assert "text" not in found
