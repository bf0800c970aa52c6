"""docs/reference/metrics.md: every metric of /metrics with its type, labels and meaning."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import Metric

from reference.markdown import code, page, table
from taximeter.core.record import Operation
from taximeter.journal.status import Status
from taximeter.reconcile.rule import Measured
from taximeter.sinks.health import DeliveryHealth, SinkHealth
from taximeter.sinks.prometheus import cells
from taximeter.sinks.prometheus.cells import Metrics, Shape
from taximeter.sinks.prometheus.families import Exposition

INTRO = """\
What `GET /metrics` on the control port exposes: Prometheus' text format, or OpenMetrics with exemplars (the id of a
request) where the scraper asks for it. Counters begin at 0 when the control process starts, with whatever history had
not passed, as Prometheus expects; each node has its own.

Labels never hold a track, document, task, key or end user. Workspaces, models and the number of series in all are
capped at {workspaces}, {models} and {series:,}; what is more is summed under `other` and counted in
`taximeter_label_overflow_total`. Cached input and reasoning output are parts of input and output, in series of their
own: don't add them.

Alerts, recording rules and Grafana dashboards over these metrics are in `config/prometheus` and `config/grafana`; which
metric is for what, and what to do at each alert: [Monitoring](../monitoring.md)."""

RECONCILED = Measured(
    name="openai", done_s=1, tolerance=0.005, apart={"output_tokens": 0.0}, passed={"output_tokens": 1.0}, failures=1
)
HEAD = ("metric", "meaning", "type", "labels")
SERIES = ("acme", "openai", "gpt-4o-mini", Operation.LLM)
BUCKETS = (
    ("`…_seconds`", cells.SECONDS), ("`taximeter_overhead_seconds`", cells.OVERHEAD_SECONDS),
    ("`…_tokens_per_request`", cells.TOKENS),
)  # fmt: skip


def health() -> DeliveryHealth:
    """Of a node with one sink."""
    sink = SinkHealth(lag_records=1, lag_seconds=1.0, errors=1, duplicates_skipped=1, failing=None)
    return DeliveryHealth(
        sinks={"redis": sink},
        in_flight=1,
        journal_files=1,
        journal_bytes=1,
        lag_seconds=1.0,
        journal_healthy=True,
        journal_errors=1,
        records_lost=1,
        journal_repairs=1,
        redirects_away=1,
        open_files_ran_out=1,
        unreadable_lines=1,
        settled=1,
        halted={},
        writers=[Status(node="n", worker="1", pid=1, open_files=1, open_files_limit=1)],
    )


def metrics_page() -> str:
    """The page."""
    found = families()
    parted: dict[str, list[Metric]] = {"Usage": [], "Calls": [], "The meter itself": []}
    for family in found:
        of_calls = "Calls" if family.type == "histogram" else "Usage"
        parted[of_calls if "model" in labels_of(family) else "The meter itself"].append(family)
    parts = [part for title, some in parted.items() for part in (f"## {title}", _table(some))]
    buckets = table(
        ("histograms", "upper bounds of their buckets"),
        [
            (name, f"{bounds[0]:.10g}, {bounds[1]:.10g}, {bounds[2]:.10g} … {bounds[-1]:,.10g}")
            for name, bounds in BUCKETS
        ],
    )
    intro = INTRO.format(workspaces=cells.MAX_WORKSPACES, models=cells.MAX_MODELS, series=cells.MAX_SERIES)
    return page("Metrics", intro, *parts, "## Values of labels", _values(), "## Buckets", buckets)


def families() -> list[Metric]:
    """Every family, each with a sample for each set of labels: of a node on which everything has happened once."""

    async def nowhere(_: Iterable[str]) -> dict[str, int]:
        return {}

    metrics = Metrics(nowhere)
    metrics.series[SERIES] = [1] * cells.CELL_SLOTS
    metrics.shapes[SERIES[1:]] = shape = Shape()
    for counts in (shape.duration, shape.ttft, shape.overhead, shape.input_tokens, shape.output_tokens):
        counts[0] = 1
    exposition = Exposition(
        metrics,
        health=health,
        budget_spent_ratio=lambda: {"acme": 0.5},
        alerts=lambda: (0, 1),
        budget_thresholds=lambda: {("acme", 80): 1},
        breakers=lambda: ({"runaway": 1}, {"runaway": 1}),
        owed=lambda: (1, 1.0, 1),
        letters=lambda: (1, 1),
        reconcile=lambda: [RECONCILED],
        node="n1",
    )
    return list(exposition.collect())


def labels_of(family: Metric) -> list[str]:
    """Names of its labels, in their order; `le` is a histogram's own."""
    names = dict.fromkeys(name for sample in family.samples for name in sample.labels)
    return [name for name in names if name != "le"]


def name_of(family: Metric) -> str:
    """As it is queried: a counter ends in `_total`."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def _table(some: list[Metric]) -> str:
    return table(
        HEAD,
        [
            (code(name_of(each)), each.documentation, each.type, ", ".join(map(code, labels_of(each))) or "none")
            for each in some
        ],
    )


def _values() -> str:
    values = (
        ("outcome", [str(each) for each in cells.OUTCOMES]),
        ("source", [str(each) for each in cells.SOURCES]),
        ("operation", [str(each) for each in Operation]),
        ("label", ["workspace", "model", "series"]),
    )
    return table(("label", "values"), [(code(name), ", ".join(map(code, all_))) for name, all_ in values])
