"""What /metrics says (DESIGN §6): names, help and labels, from `cells` and the health of delivery.

Money is an integer until here, where Prometheus wants a float.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Exemplar as PrometheusExemplar

from taximeter import __version__
from taximeter.reconcile.rule import Measured
from taximeter.sinks.health import DeliveryHealth
from taximeter.sinks.prometheus import cells, reconciled
from taximeter.sinks.prometheus.cells import Exemplar, Metrics, Shape

_LABELS = ("workspace", "provider", "model", "operation")

_SUMS = (
    ("cached_input_tokens", "Input tokens the provider read from its cache; part of the input tokens."),
    ("cache_write_input_tokens", "Input tokens the provider wrote to its cache; part of the input tokens."),
    ("reasoning_output_tokens", "Output tokens spent on reasoning; part of the output tokens."),
    ("search_units", "Search units billed for reranking."),
    ("cost_usd", "Cost of the priced attempts, in US dollars."),
    ("unpriced_requests", "Attempts with known usage and no price."),
    ("usage_missing", "Attempts that may have been billed and of whose usage nothing is known."),
)
"""One for each of `cells.SUMMED`, in that order."""

_MAX_EXEMPLAR_CHARS = 128
"""OpenMetrics' bound on an exemplar's label names and values together."""


class Exposition:
    """A prometheus-client collector over the cells, and the text of /metrics."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        health: Callable[[], DeliveryHealth] | None = None,
        redis_drift: Callable[[], int] = lambda: 0,
        budget_spent_ratio: Callable[[], Mapping[str, float]] = dict,
        alerts: Callable[[], tuple[int, int]] | None = None,
        budget_thresholds: Callable[[], Mapping[tuple[str, int], int]] = dict,
        breakers: Callable[[], tuple[Mapping[str, int], Mapping[str, int]]] | None = None,
        letters: Callable[[], tuple[int, int]] | None = None,
        owed: Callable[[], tuple[int, float, int]] | None = None,
        reconcile: Callable[[], Sequence[Measured]] = tuple,
        node: str = "",
    ) -> None:
        """`budget_spent_ratio` returns workspace -> spent / limit of its fullest budget; `budget_thresholds`, by
        workspace and per cent, how often one was reached; `alerts`, how many of their
        letters wait and were given up; `breakers`, by name, how many
        places each stops now and how often it tripped; `letters`, where there is a
        webhook, how many letters wait and how many were given up; `owed`, of what is billed later, how many objects are
        outstanding, for how many seconds the oldest is, and how many were written off;
        `reconcile`, how comparisons with providers stand."""
        self._metrics = metrics
        self._health = health
        self._redis_drift = redis_drift
        self._budget_spent_ratio = budget_spent_ratio
        self._alerts = alerts
        self._budget_thresholds = budget_thresholds
        self._breakers = breakers
        self._letters = letters
        self._owed = owed
        self._reconcile = reconcile
        self._node = node
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type: OpenMetrics, with exemplars, where `accept` asks for it.

        About 10 µs a series: with thousands of them, call it in a thread. Cells may move meanwhile.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not ask for a whole collection to know our names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family. Called by the registry."""
        yield from self._counters()
        yield from self._histograms()
        yield from self._health_families()

    def _counters(self) -> Iterator[Metric]:
        requests = _counter("requests", "Requests, by how their first attempt ended.", (*_LABELS, "outcome"))
        tokens_in = _counter("input_tokens", "Input tokens, cached ones included.", (*_LABELS, "source"))
        tokens_out = _counter("output_tokens", "Output tokens, reasoning included.", (*_LABELS, "source"))
        sums = [_counter(name, text, _LABELS) for name, text in _SUMS]
        exemplars = self._metrics.request_exemplars
        for key, cell in list(self._metrics.series.items()):
            workspace, provider, model, operation = key
            labels = (workspace, provider, model, str(operation))
            for slot, outcome in enumerate(cells.OUTCOMES):
                if cell[slot]:
                    exemplar = _exemplar(exemplars.get((key, slot)))
                    requests.add_metric((*labels, str(outcome)), cell[slot], exemplar=exemplar)
            for slot, source in enumerate(cells.SOURCES):
                if cell[cells.INPUT + slot]:
                    tokens_in.add_metric((*labels, str(source)), cell[cells.INPUT + slot])
                if cell[cells.OUTPUT + slot]:
                    tokens_out.add_metric((*labels, str(source)), cell[cells.OUTPUT + slot])
            for family, amount in zip(sums, cell[cells.SUMS :], strict=True):
                if amount:
                    family.add_metric(labels, amount / 1e9 if family.name == "taximeter_cost_usd" else amount)
        yield from (requests, tokens_in, tokens_out, *sums)

    def _histograms(self) -> Iterator[Metric]:
        duration = _histogram("request_duration_seconds", "Time from request to the end of its answer.")
        ttft = _histogram("time_to_first_token_seconds", "Time from request to the first token of a streamed answer.")
        overhead = _histogram("overhead_seconds", "Time an attempt spent in the proxy itself.")
        tokens_in = _histogram("input_tokens_per_request", "Input tokens of an attempt.")
        tokens_out = _histogram("output_tokens_per_request", "Output tokens of an attempt.")
        for (provider, model, operation), shape in list(self._metrics.shapes.items()):
            labels = {"provider": provider, "model": model, "operation": str(operation)}
            for family, bounds, counts, total, exemplars in _measured(
                shape, (duration, ttft, overhead, tokens_in, tokens_out)
            ):
                _add_histogram(family, labels, bounds, counts, total, exemplars)
        yield from (duration, ttft, overhead, tokens_in, tokens_out)

    def _health_families(self) -> Iterator[Metric]:
        build = _gauge("build_info", "Always 1; says what is running.", ("version", "python", "node"))
        build.add_metric((__version__, platform.python_version(), self._node), 1)
        yield build
        overflow = _counter("label_overflow", "Times a value was summed under `other`, by what was full.", ("label",))
        for label, times in self._metrics.overflow.items():
            overflow.add_metric((label,), times)
        yield overflow
        yield _plain(
            _counter("redis_drift", "Audits that found Redis counters differing from history."), self._redis_drift()
        )
        ratio = _gauge("budget_spent_ratio", "Spent part of a workspace's fullest budget; 1 is all.", ("workspace",))
        for workspace, spent in self._budget_spent_ratio().items():
            ratio.add_metric((workspace,), spent)
        yield ratio
        told = _counter(
            "budget_thresholds", "Times a threshold of a budget was reached.", ("workspace", "threshold_percent")
        )
        for (workspace, percent), times in self._budget_thresholds().items():
            told.add_metric((workspace, str(percent)), times)
        yield told
        if self._alerts is not None:
            waiting, given_up = self._alerts()
            yield _plain(_gauge("alert_letters", "Alerts on their way by mail or webhook."), waiting)
            yield _plain(_counter("alert_letters_given_up", "Alerts that nobody took."), given_up)
        if self._breakers is not None:
            stopping, tripped = self._breakers()
            now = _gauge("breaker_open", "Workspaces, keys or tracks that a breaker stops now.", ("breaker",))
            often = _counter("breaker_trips", "Times a breaker tripped on this node.", ("breaker",))
            for name, places in stopping.items():
                now.add_metric((name,), places)
                often.add_metric((name,), tripped.get(name, 0))
            yield from (now, often)
        if self._letters is not None:
            waiting, dead = self._letters()
            yield _plain(_gauge("webhook_letters", "Letters the webhook still tries to send."), waiting)
            yield _plain(_gauge("webhook_dead_letters", "Letters the webhook has given up."), dead)
        if self._owed is not None:
            objects, oldest_s, expired = self._owed()
            yield _plain(_gauge("owed_objects", "Objects by which calls are billed later, outstanding."), objects)
            yield _plain(_gauge("owed_oldest_seconds", "How long the oldest of them has been outstanding."), oldest_s)
            yield _plain(_gauge("owed_expired", "Objects of which nobody told, written off."), expired)
        if measured := self._reconcile():
            yield from reconciled.families(measured)
        if self._health is not None:
            yield from _delivery(self._health())


def _delivery(health: DeliveryHealth) -> Iterator[Metric]:
    taken = "Journal files taken away, replaced or cut while they were being written."
    ran_out = "Clients turned away and sockets not opened because of the limit of open files."
    led = "Redirects passed on that lead away from their upstream: who follows one is not metered."
    for kind, name, text, value in (
        (_gauge, "requests_in_flight", "Calls open in the journals of this node.", health.in_flight),
        (_gauge, "journal_lag_seconds", "Age of the oldest record a sink does not have.", health.lag_seconds),
        (_gauge, "journal_bytes", "Size of the journal files on disk.", health.journal_bytes),
        (
            _gauge,
            "journals_halted",
            "Journal files nothing is delivered from until an operator looks.",
            len(health.halted),
        ),
        (_counter, "journal_errors", "Journal lines that could not be written at once.", health.journal_errors),
        (_counter, "records_lost", "Records that could not be kept.", health.records_lost),
        (_counter, "journal_repairs", taken, health.journal_repairs),
        (_counter, "redirects_away", led, health.redirects_away),
        (_counter, "open_files_ran_out", ran_out, health.open_files_ran_out),
        (_counter, "journal_unreadable_lines", "Journal lines that could not be read.", health.unreadable_lines),
    ):
        yield _plain(kind(name, text), value)
    for name, text, of_writer in (
        ("open_files", "Files and sockets a worker has open.", "open_files"),
        ("open_files_limit", "Files and sockets a worker may have open.", "open_files_limit"),
    ):
        files = _gauge(name, text, ("worker",))
        for writer in health.writers:
            if (figure := getattr(writer, of_writer)) is not None and writer.open_files_limit:
                files.add_metric((writer.worker,), figure)
        yield files
    for kind, name, text, of_sink in (
        (_gauge, "sink_lag_records", "Records a sink does not have yet.", "lag_records"),
        (_counter, "sink_errors", "Failed deliveries.", "errors"),
        (_counter, "sink_duplicates_skipped", "Records a sink was offered again and had.", "duplicates_skipped"),
        (_counter, "sink_set_aside", "Records a sink could not take, which were set aside.", "set_aside"),
        (_gauge, "sink_set_aside_records", "Records set aside that a sink still lacks.", "set_aside_records"),
    ):
        family = kind(name, text, ("sink",))
        for sink, its in health.sinks.items():
            if (figure := getattr(its, of_sink)) is not None:
                family.add_metric((sink,), figure)
        yield family


def _gauge(name: str, text: str, labels: Sequence[str] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"taximeter_{name}", text, labels=labels)


def _counter(name: str, text: str, labels: Sequence[str] = ()) -> CounterMetricFamily:
    return CounterMetricFamily(f"taximeter_{name}", text, labels=labels)


def _plain(family: CounterMetricFamily | GaugeMetricFamily, value: float) -> Metric:
    family.add_metric((), value)
    return family


def _histogram(name: str, text: str) -> Metric:
    return Metric(f"taximeter_{name}", text, "histogram")


_Measured = tuple[Metric, Sequence[float], list[int], float, Mapping[int, Exemplar]]


def _measured(shape: Shape, families: tuple[Metric, Metric, Metric, Metric, Metric]) -> Iterator[_Measured]:
    duration, ttft, overhead, tokens_in, tokens_out = families
    yield duration, cells.SECONDS, shape.duration, shape.duration_us / 1e6, shape.duration_exemplars
    yield ttft, cells.SECONDS, shape.ttft, shape.ttft_us / 1e6, shape.ttft_exemplars
    yield overhead, cells.OVERHEAD_SECONDS, shape.overhead, shape.overhead_us / 1e6, {}
    yield tokens_in, cells.TOKENS, shape.input_tokens, shape.input_tokens_sum, {}
    yield tokens_out, cells.TOKENS, shape.output_tokens, shape.output_tokens_sum, {}


def _add_histogram(
    family: Metric,
    labels: dict[str, str],
    bounds: Sequence[float],
    counts: list[int],
    total: float,
    exemplars: Mapping[int, Exemplar],
) -> None:
    """A histogram's samples, buckets cumulated; none at all where nothing was observed."""
    cumulated = list(accumulate(counts))
    if not cumulated[-1]:
        return
    for slot, (bound, count) in enumerate(zip((*map(_bound, bounds), "+Inf"), cumulated, strict=True)):
        exemplar = _exemplar(exemplars.get(slot))
        family.add_sample(f"{family.name}_bucket", labels | {"le": bound}, count, exemplar=exemplar)
    family.add_sample(f"{family.name}_count", labels, cumulated[-1])
    family.add_sample(f"{family.name}_sum", labels, total)


def _bound(bound: float) -> str:
    """0.05 and not 0.05000000000000001; 1.0 and not 1, as OpenMetrics asks."""
    return repr(float(f"{bound:.10g}"))


def _exemplar(found: Exemplar | None) -> PrometheusExemplar | None:
    if found is None:
        return None
    request_id, value, at_us = found
    if len(request_id) + len("request_id") > _MAX_EXEMPLAR_CHARS:
        return None
    return PrometheusExemplar({"request_id": request_id}, value, at_us / 1e6)
