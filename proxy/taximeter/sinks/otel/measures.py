"""The metrics of calls, in one version of the conventions or in both, and the cost."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from taximeter import __version__
from taximeter.core.record import Operation, Record
from taximeter.sinks.otel import convention
from taximeter.sinks.otel.convention import FIRST_CHUNK_SECONDS, SECONDS, TOKENS, Value

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter
    from opentelemetry.sdk.metrics import MeterProvider

Attributes = dict[str, Value]


class _Version(Protocol):
    def add(self, record: Record, attributes: Attributes) -> None: ...


class Measures:
    """Client metrics of calls. With both versions a duration that they name alike is measured once."""

    def __init__(self, provider: MeterProvider, versions: Collection[str]) -> None:
        self.provider = provider
        meter = provider.get_meter("taximeter", __version__)
        self._versions: list[_Version] = []
        if convention.EARLIER in versions:
            self._versions.append(_Earlier(meter))
        if convention.LATEST in versions:
            self._versions.append(_Latest(meter, alone=len(versions) == 1))
        self._cost = meter.create_counter("taximeter.cost", "n{USD}", "Nano-USD, of calls that have a price")

    def add(self, record: Record, *, known: bool) -> None:
        attributes = convention.of_metrics(record, known=known)
        for version in self._versions:
            version.add(record, attributes)
        if record.cost_nusd is not None:
            self._cost.add(record.cost_nusd, attributes)


class _Earlier:
    """semantic-conventions 1.41.0: one histogram of tokens, of which the sums are the totals."""

    def __init__(self, meter: Meter) -> None:
        self._tokens = _histogram(meter, "gen_ai.client.token.usage", "{token}", TOKENS)
        self._duration = _histogram(meter, "gen_ai.client.operation.duration", "s", SECONDS)
        self._first = _histogram(meter, "gen_ai.client.operation.time_to_first_chunk", "s", FIRST_CHUNK_SECONDS)

    def add(self, record: Record, attributes: Attributes) -> None:
        for kind, tokens in (("input", record.input_tokens), ("output", record.output_tokens)):
            if tokens is not None:
                self._tokens.record(tokens, {**attributes, "gen_ai.token.type": kind})
        _seconds(self._duration, record.duration_ms, attributes)
        _seconds(self._first, record.ttft_ms, attributes)


class _Latest:
    """semantic-conventions-genai 0.1.0: counters by kind of token and modality, which add up to what was used, beside
    histograms by call, which do not.

    It asks for a 0 where a call's usage is not known. There is none from us: a distribution would have calls in it
    that used nothing.
    """

    def __init__(self, meter: Meter, *, alone: bool) -> None:
        """`alone`: no other version tells operation.duration of what is neither inference nor an embedding."""
        inference, embeddings = "gen_ai.client.inference", "gen_ai.client.embeddings"
        self._usage = {
            kind: meter.create_counter(f"{inference}.usage.{kind}", "{token}")
            for kind in (
                "input_tokens",
                "output_tokens",
                "cache_read.input_tokens",
                "cache_write.input_tokens",
                "reasoning.output_tokens",
            )
        }
        self._input = _histogram(meter, f"{inference}.operation.input_tokens", "{token}", TOKENS)
        self._output = _histogram(meter, f"{inference}.operation.output_tokens", "{token}", TOKENS)
        self._embedded = _histogram(meter, f"{embeddings}.operation.input_tokens", "{token}", TOKENS)
        self._first = _histogram(meter, f"{inference}.time_to_first_chunk", "s", FIRST_CHUNK_SECONDS)
        self._durations = {
            Operation.LLM: _histogram(meter, f"{inference}.duration", "s", SECONDS),
            Operation.EMBEDDING: _histogram(meter, f"{embeddings}.duration", "s", SECONDS),
        }
        if alone:
            other = _histogram(meter, "gen_ai.client.operation.duration", "s", SECONDS)
            self._durations |= {Operation.RERANK: other, Operation.OTHER: other}

    def add(self, record: Record, attributes: Attributes) -> None:
        if (duration := self._durations.get(record.operation)) is not None:
            _seconds(duration, record.duration_ms, attributes)
        if record.operation is Operation.EMBEDDING:
            _tokens(self._embedded, record.input_tokens, attributes)
        elif record.operation is Operation.LLM:
            _seconds(self._first, record.ttft_ms, attributes)
            _tokens(self._input, record.input_tokens, attributes)
            _tokens(self._output, record.output_tokens, attributes)
            whose = {name: value for name, value in attributes.items() if name != "error.type"}
            for kind, parts in convention.usage_counters(record).items():
                for modality, tokens in parts.items():
                    self._usage[kind].add(tokens, {**whose, "gen_ai.token.modality": modality})


def _histogram(meter: Meter, name: str, unit: str, buckets: tuple[float, ...]) -> Histogram:
    return meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=buckets)


def _seconds(histogram: Histogram, ms: float | None, attributes: Attributes) -> None:
    if ms is not None:
        histogram.record(ms / 1_000, attributes)


def _tokens(histogram: Histogram, tokens: int | None, attributes: Attributes) -> None:
    if tokens is not None:
        histogram.record(tokens, attributes)
