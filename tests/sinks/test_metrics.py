"""The Prometheus sink: the same sums as everywhere, bounded in series, in a form Prometheus and promtool accept."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ledger_fake import NOON_US, batch, folded, record, traffic
from taximeter.core.record import Operation, Outcome, Source
from taximeter.journal.status import Status
from taximeter.sinks.health import DeliveryHealth, SinkHealth
from taximeter.sinks.prometheus.cells import (
    MAX_MODELS,
    MAX_SERIES,
    MAX_WORKSPACES,
    SECONDS,
    SHAPE_SERIES,
    Metrics,
    Shape,
)
from taximeter.sinks.prometheus.families import Exposition

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def at_zero(journal_ids: Iterable[str]) -> dict[str, int]:
    return dict.fromkeys(journal_ids, 0)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(at_zero, now_us=lambda: NOON_US)


def samples(metrics: Metrics, **options: object) -> Samples:
    body, _ = Exposition(metrics, **options).render()  # type: ignore[arg-type]
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(body.decode())
        for sample in family.samples
    }


def total(found: Samples, name: str, **labels: str) -> float:
    return sum(value for (n, have), value in found.items() if n == name and labels.items() <= dict(have).items())


async def test_one_record_is_exposed_under_the_names_of_the_contract(metrics: Metrics) -> None:
    await metrics.cursors(["j1"])
    await metrics.deliver([batch([record(1, reasoning_output_tokens=5, ttft_ms=300.0)])])
    found = samples(metrics)
    of = {"workspace": "acme", "provider": "openai", "model": "gpt-4o-mini-2024-07-18", "operation": "llm"}
    for name, labels, value in [
        ("requests_total", {"outcome": "ok"}, 1),
        ("input_tokens_total", {"source": "reported"}, 100),
        ("output_tokens_total", {"source": "reported"}, 20),
        ("cached_input_tokens_total", {}, 64),
        ("reasoning_output_tokens_total", {}, 5),
        ("cost_usd_total", {}, 0.000027),
    ]:
        assert found[f"taximeter_{name}", frozenset((of | labels).items())] == value
    del of["workspace"]
    for name, le, value in [
        ("request_duration_seconds_bucket", "0.64", 0),
        ("request_duration_seconds_bucket", "1.28", 1),
        ("request_duration_seconds_bucket", "+Inf", 1),
        ("time_to_first_token_seconds_bucket", "0.32", 1),
        ("overhead_seconds_bucket", "0.0001", 0),
        ("overhead_seconds_bucket", "0.0002", 1),
        ("input_tokens_per_request_bucket", "64.0", 0),
        ("input_tokens_per_request_bucket", "256.0", 1),
    ]:
        assert found[f"taximeter_{name}", frozenset((of | {"le": le}).items())] == value
    assert found["taximeter_request_duration_seconds_sum", frozenset(of.items())] == 0.9


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 150), max_size=4))
async def test_the_sums_are_those_of_every_other_sink(seed: int, cuts: list[int]) -> None:
    metrics = Metrics(at_zero, now_us=lambda: NOON_US)
    records = traffic(seed, 150)
    await metrics.cursors(["j1"])
    for start, end in pairwise(sorted({0, *cuts, 150})):
        assert await metrics.deliver([batch(records[start:end])]) == {"j1": end}
    found = samples(metrics)
    usage = [r for r in records if r.kind == "usage"]
    for workspace in {r.workspace for r in usage}:
        sums = folded(r for r in usage if r.workspace == workspace)
        for name, expected in [
            ("taximeter_requests_total", sums.requests),
            ("taximeter_cached_input_tokens_total", sums.llm_cached_input_tokens),
            ("taximeter_cache_write_input_tokens_total", sums.llm_cache_write_input_tokens),
            ("taximeter_reasoning_output_tokens_total", sums.llm_reasoning_output_tokens),
            ("taximeter_search_units_total", sums.search_units),
            ("taximeter_unpriced_requests_total", sums.unpriced_requests),
            ("taximeter_usage_missing_total", sums.unknown_requests),
        ]:
            assert (name, total(found, name, workspace=workspace)) == (name, expected)
        tokens_in = total(found, "taximeter_input_tokens_total", workspace=workspace)
        tokens_out = total(found, "taximeter_output_tokens_total", workspace=workspace)
        assert tokens_in + tokens_out == sums.total_tokens
        counted = total(found, "taximeter_input_tokens_total", workspace=workspace, source="counted")
        counted += total(found, "taximeter_output_tokens_total", workspace=workspace, source="counted")
        assert counted == sums.counted_tokens
        assert round(total(found, "taximeter_cost_usd_total", workspace=workspace) * 1e9) == sums.cost_nusd
    sent = [r for r in usage if r.outcome is not Outcome.REFUSED]
    assert total(found, "taximeter_request_duration_seconds_count") == len(sent)
    assert total(found, "taximeter_time_to_first_token_seconds_count") == sum(r.ttft_ms is not None for r in sent)


async def test_corrections_are_not_counted(metrics: Metrics) -> None:
    await metrics.deliver([batch([record(1, kind="correction", cost_nusd=-5)])])
    assert (metrics.series, metrics.shapes) == ({}, {})


async def test_it_starts_where_history_is_and_skips_what_it_had(metrics: Metrics) -> None:
    async def history(journal_ids: Iterable[str]) -> dict[str, int]:
        return dict.fromkeys(journal_ids, 7)

    metrics = Metrics(history, now_us=lambda: NOON_US)
    assert await metrics.cursors(["j1"]) == {"j1": 7}
    assert await metrics.deliver([batch(traffic(1, 7))]) == {"j1": 7}
    assert metrics.series == {}
    assert await metrics.deliver([batch([record(8)])]) == {"j1": 8}
    assert total(samples(metrics), "taximeter_requests_total") == 1


async def test_of_a_journal_that_appears_later_only_old_news_is_skipped() -> None:
    """An adopted journal: history had its first two records. A new one that history was quicker to read: counted."""

    async def history(journal_ids: Iterable[str]) -> dict[str, int]:
        return dict.fromkeys(journal_ids, 2)

    metrics = Metrics(history, now_us=lambda: NOON_US)
    await metrics.cursors([])
    assert await metrics.cursors(["adopted", "new"]) == {"adopted": 0, "new": 0}
    before = NOON_US - 1
    await metrics.deliver([batch([record(n, journal_id="adopted", ended_at=before) for n in (1, 2, 3)])])
    assert total(samples(metrics), "taximeter_requests_total") == 1
    await metrics.deliver([batch([record(n, journal_id="new") for n in (1, 2, 3)])])
    assert total(samples(metrics), "taximeter_requests_total") == 4


async def test_a_batch_for_another_cursor_is_not_applied(metrics: Metrics) -> None:
    await metrics.deliver([batch([record(1)])])
    assert await metrics.deliver([batch([record(1)]), batch([record(3)])]) == {"j1": 1}
    assert total(samples(metrics), "taximeter_requests_total") == 1


async def test_workspaces_and_models_beyond_the_caps_are_other(metrics: Metrics) -> None:
    records = [record(n, workspace=f"w{n}", response_model=f"m{n}") for n in range(1, 601)]
    for start in range(0, 600, 50):
        await metrics.deliver([batch(records[start : start + 50])])
    found = samples(metrics)
    assert total(found, "taximeter_requests_total") == 600
    labels = [dict(have) for (name, have) in found if name == "taximeter_requests_total"]
    assert len({of["workspace"] for of in labels}) <= MAX_WORKSPACES + 1
    assert len({of["model"] for of in labels}) <= MAX_MODELS + 1
    assert total(found, "taximeter_requests_total", workspace="other", model="other") >= 100
    assert total(found, "taximeter_label_overflow_total", label="workspace") == 100


async def test_the_number_of_series_is_bounded_and_nothing_is_dropped(metrics: Metrics) -> None:
    outcomes = list(Outcome)
    records = [
        record(
            n,
            workspace=f"w{n % 480}",
            response_model=f"m{n % 487}",
            provider=f"p{n % 3}",
            outcome=outcomes[n % len(outcomes)],
            operation=Operation.LLM if n % 2 else Operation.EMBEDDING,
            input_source=Source.COUNTED if n % 5 else Source.REPORTED,
            ttft_ms=n % 900,
        )
        for n in range(1, 8_001)
    ]
    for start in range(0, 8_000, 1_000):
        await metrics.deliver([batch(records[start : start + 1_000])])
    found = samples(metrics)
    usage = [name for name, have in found if {"model"} <= dict(have).keys()]
    assert MAX_SERIES * 0.8 < len(usage) <= MAX_SERIES
    assert total(found, "taximeter_requests_total") == 8_000
    assert total(found, "taximeter_input_tokens_total") == 100 * 8_000
    assert round(total(found, "taximeter_cost_usd_total") * 1e9) == 27_000 * 8_000
    sent = sum(r.outcome is not Outcome.REFUSED for r in records)
    assert total(found, "taximeter_request_duration_seconds_count") == sent
    assert total(found, "taximeter_label_overflow_total", label="series") > 0


async def test_the_series_of_a_shape_are_what_is_reserved_for_it(metrics: Metrics) -> None:
    await metrics.deliver([batch([record(1, ttft_ms=1.0)])])
    shape = [name for name, have in samples(metrics) if "_bucket" in name or "_sum" in name or "_count" in name]
    assert len(shape) == SHAPE_SERIES


def test_observations_fall_into_the_bucket_they_do_not_exceed() -> None:
    shape = Shape()
    shape.observe([record(1, duration_ms=ms, ttft_ms=None) for ms in (10.0, 10.001, 81_920.0, 81_921.0)])
    assert [(slot, n) for slot, n in enumerate(shape.duration) if n] == [(0, 1), (1, 1), (13, 1), (14, 1)]
    assert SECONDS[0] == 0.01
    assert SECONDS[13] == 81.92


async def test_openmetrics_carries_request_ids_as_exemplars(metrics: Metrics) -> None:
    await metrics.deliver([batch([record(1), record(2, outcome=Outcome.TIMEOUT), record(3, request_id="x" * 200)])])
    body, content_type = Exposition(metrics).render(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    exemplars = {
        (sample.name, sample.labels.get("outcome") or sample.labels.get("le")): sample.exemplar
        for family in parse_openmetrics(body.decode())
        for sample in family.samples
        if sample.exemplar
    }
    failed = exemplars["taximeter_requests_total", "timeout"]
    assert (failed.labels, failed.value, float(failed.timestamp)) == ({"request_id": "req-j1-2"}, 1.0, NOON_US / 1e6)
    assert ("taximeter_requests_total", "ok") not in exemplars  # the last one's id is too long for OpenMetrics


async def test_hostile_names_do_not_break_the_exposition(metrics: Metrics) -> None:
    names = ['a"b\\c\nd', "lone \ud800", "x" * 5_000, "", "é{}"]
    await metrics.deliver([batch([record(n, response_model=name) for n, name in enumerate(names, 1)])])
    for accept in ("", OPENMETRICS):
        body, _ = Exposition(metrics).render(accept)
        parse = parse_openmetrics if accept else parse_text
        models = {s.labels["model"] for f in parse(body.decode()) for s in f.samples if "model" in s.labels}
        assert 'a"b\\c\nd' in models
        assert max(map(len, models)) == 200


def health(**fields: object) -> DeliveryHealth:
    plain: dict[str, object] = {
        "sinks": {
            "redis": SinkHealth(
                lag_records=12,
                lag_seconds=0.5,
                errors=3,
                duplicates_skipped=4,
                failing=None,
                set_aside=10,
                set_aside_records=2,
            ),
            "history": SinkHealth(lag_records=None, lag_seconds=0.0, errors=0, duplicates_skipped=0, failing=None),
        },
        "in_flight": 2,
        "journal_files": 1,
        "journal_bytes": 1_155,
        "lag_seconds": 0.5,
        "journal_healthy": True,
        "journal_errors": 5,
        "records_lost": 6,
        "journal_repairs": 9,
        "redirects_away": 11,
        "open_files_ran_out": 12,
        "unreadable_lines": 7,
        "settled": 0,
        "halted": {"j9": "why"},
        "writers": [
            Status(node="n", worker="1", pid=1, open_files=20, open_files_limit=1024),
            Status(node="n", worker="2", pid=2, open_files_limit=1024),
            Status(node="n", worker="control", pid=3),
        ],
    }
    return DeliveryHealth(**(plain | fields))  # type: ignore[arg-type]


def test_the_health_of_delivery_is_exposed(metrics: Metrics) -> None:
    found = samples(metrics, health=health, redis_drift=lambda: 8, budget_spent_ratio=lambda: {"acme": 0.25}, node="n1")
    exposed = {name: value for (name, have), value in found.items() if not have}
    assert exposed == {
        "taximeter_redis_drift_total": 8,
        "taximeter_requests_in_flight": 2,
        "taximeter_journal_lag_seconds": 0.5,
        "taximeter_journal_bytes": 1_155,
        "taximeter_journals_halted": 1,
        "taximeter_journal_errors_total": 5,
        "taximeter_records_lost_total": 6,
        "taximeter_journal_repairs_total": 9,
        "taximeter_redirects_away_total": 11,
        "taximeter_open_files_ran_out_total": 12,
        "taximeter_journal_unreadable_lines_total": 7,
    }
    workers = [frozenset({"worker": name}.items()) for name in ("1", "2", "control")]
    assert [found.get(("taximeter_open_files", worker)) for worker in workers] == [20, None, None]
    assert [found.get(("taximeter_open_files_limit", worker)) for worker in workers] == [1024, 1024, None]
    redis = frozenset({"sink": "redis"}.items())
    assert found["taximeter_sink_lag_records", redis] == 12
    assert found["taximeter_sink_errors_total", redis] == 3
    assert found["taximeter_sink_duplicates_skipped_total", redis] == 4
    assert found["taximeter_sink_set_aside_total", redis] == 10
    assert found["taximeter_sink_set_aside_records", redis] == 2
    assert ("taximeter_sink_lag_records", frozenset({"sink": "history"}.items())) not in found
    assert total(found, "taximeter_budget_spent_ratio", workspace="acme") == 0.25
    assert total(found, "taximeter_build_info", node="n1") == 1


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt install prometheus)"
)
async def test_promtool_has_nothing_to_say_about_names_and_help(metrics: Metrics) -> None:
    await metrics.deliver([batch(traffic(1, 500))])
    body, _ = Exposition(metrics, health=health).render()
    checked = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr.decode(), checked.stdout.decode()) == (0, "", "")
