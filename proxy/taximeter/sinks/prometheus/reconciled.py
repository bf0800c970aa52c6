"""What /metrics says of comparisons with providers. Every node tells the same of them, but for its own failures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from taximeter.reconcile.rule import Measured

_APART = "How far our figures and the provider's are apart, of those judged: 0, nothing differs; 1, nothing agrees."
_PASSED = "Part of what the provider tells that passed here; what is missing never did."
_TOLERANCE = "How far apart they may be."
_DONE = "When it was compared last, Unix time; 0: never."
_FAILED = "Comparisons that failed on this node: the provider was not to be had."


def families(measured: Sequence[Measured]) -> Iterator[Metric]:
    """One series a comparison, or one a figure of it."""
    apart = GaugeMetricFamily("taximeter_reconcile_difference_ratio", _APART, labels=("reconcile", "figure"))
    passed = GaugeMetricFamily("taximeter_reconcile_coverage_ratio", _PASSED, labels=("reconcile", "figure"))
    tolerance = GaugeMetricFamily("taximeter_reconcile_tolerance_ratio", _TOLERANCE, labels=("reconcile",))
    done = GaugeMetricFamily("taximeter_reconcile_last_success_timestamp_seconds", _DONE, labels=("reconcile",))
    failed = CounterMetricFamily("taximeter_reconcile_failures", _FAILED, labels=("reconcile",))
    for each in measured:
        for family, parts in ((apart, each.apart), (passed, each.passed)):
            for figure, part in parts.items():
                family.add_metric((each.name, figure.removesuffix("_nusd")), part)
        tolerance.add_metric((each.name,), each.tolerance)
        done.add_metric((each.name,), each.done_s)
        failed.add_metric((each.name,), each.failures)
    yield from (apart, passed, tolerance, done, failed)
