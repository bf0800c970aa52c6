"""The sink named `otel`: hands records to the OpenTelemetry SDK, which exports them over OTLP/HTTP.

It keeps nothing: what the collector does not take in time is dropped by the SDK, and logged. It is no source of totals.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from threading import Thread
from typing import TYPE_CHECKING

from taximeter import __version__
from taximeter.config.settings import OtelSettings
from taximeter.core.errors import ConfigError
from taximeter.core.record import Outcome, Record
from taximeter.sinks.batch import Batch
from taximeter.sinks.otel import convention
from taximeter.sinks.otel.measures import Measures
from taximeter.sinks.passing import Passing, Start

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

WAITING_SPANS = 20_000
"""Spans that wait for a slow collector; beyond it they are dropped."""
MODELS = 500
"""Models told apart in metrics; they come from requests, so without a bound anyone could fill the collector."""


class Otel:
    """Implements sinks.sink.Sink. Like Prometheus it begins, in each journal, where history was at its start."""

    name = "otel"
    durable = False

    def __init__(
        self, settings: OtelSettings, *, node: str, start: Start, environ: Mapping[str, str] = os.environ
    ) -> None:
        """`start`: history's `cursors`. Raises ConfigError where the SDK is not installed, or a header is none."""
        self._passing = Passing(start)
        self._models: set[tuple[str, str]] = set()
        headers = read_headers(settings.headers_env, environ)
        versions = convention.wanted(environ.get(convention.OPT_IN, ""))
        try:
            resource = _resource(settings.service_name, node)
            self._spans = _Spans(_tracing(settings, headers, resource), versions) if settings.traces else None
            self._measures = Measures(_metering(settings, headers, resource), versions) if settings.metrics else None
        except ImportError as error:
            raise ConfigError(
                f"otel.endpoint is set, but {error.name} is not installed: pip install 'taximeter[otel]'"
            ) from None

    async def cursors(self, journal_ids: Iterable[str]) -> dict[str, int]:
        return await self._passing.cursors(journal_ids)

    async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        journals = [batch.journal_id for batch in batches]
        await self.cursors(journals)
        for batch in self._passing.fresh(batches):
            await asyncio.to_thread(self._take, batch.records)
        return await self.cursors(journals)

    def become(self, other: Otel) -> None:
        """Go on with another's settings, from where this one is. What waits is exported as it was to be."""
        former, self._spans, self._measures = (self._spans, self._measures), other._spans, other._measures
        Thread(target=_shut_down, args=(former,), name="otel-former", daemon=True).start()

    async def close(self) -> None:
        """Export what waits, as long as the exporters' timeout allows."""
        await asyncio.to_thread(_shut_down, (self._spans, self._measures))

    def _take(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.kind != "usage":
                continue  # a correction is no call
            if self._spans is not None:
                self._spans.add(record)
            if self._measures is not None and record.outcome is not Outcome.REFUSED:
                self._measures.add(record, known=self._known(record))

    def _known(self, record: Record) -> bool:
        model = (record.request_model or "", record.response_model or "")
        if model not in self._models and len(self._models) >= MODELS:
            return False
        self._models.add(model)
        return True


class _Spans:
    """One span a call, with the call's own times and ids."""

    def __init__(self, provider: TracerProvider, versions: Collection[str]) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self.provider = provider
        self._versions = versions
        self._tracer = provider.get_tracer("taximeter", __version__)
        self._client = SpanKind.CLIENT

        def failed(why: str) -> Status:
            return Status(StatusCode.ERROR, why)

        self._failed = failed

    def add(self, record: Record) -> None:
        self.provider.id_generator.next = convention.ids(record)  # type: ignore[attr-defined]
        name = f"{convention.operation(record)} {record.request_model or record.model}"
        attributes = convention.of_span(record, self._versions)
        start_ns, end_ns = record.started_at * 1_000, record.ended_at * 1_000
        span = self._tracer.start_span(name, kind=self._client, attributes=attributes, start_time=start_ns)
        if (error := convention.error_type(record)) is not None:
            span.set_status(self._failed(record.error_code or error))
        span.end(end_ns)


def _shut_down(parts: tuple[_Spans | None, Measures | None]) -> None:
    for part in parts:
        if part is not None:
            part.provider.shutdown()


def read_headers(variable: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`name=value,…` in an environment variable, as OTEL_EXPORTER_OTLP_HEADERS has it. Raises ConfigError."""
    if not variable:
        return {}
    if variable not in environ:
        raise ConfigError(f"otel.headers_env: the environment variable {variable} is not set.")
    pairs = [pair.partition("=") for pair in environ[variable].split(",") if pair.strip()]
    if any(not name.strip() or not equals for name, equals, _ in pairs):
        raise ConfigError(f"otel.headers_env: {variable} is not of the form name=value,name=value.")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _resource(service_name: str, node: str) -> Resource:
    from opentelemetry.sdk.resources import Resource

    given = {"service.name": service_name, "service.version": __version__, "service.instance.id": node}
    return Resource.create(given)


def _tracing(settings: OtelSettings, headers: dict[str, str], resource: Resource) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    class Given(IdGenerator):
        """The ids of the record whose span is made next."""

        next = (1, 1)

        def generate_trace_id(self) -> int:
            return self.next[0]

        def generate_span_id(self) -> int:
            return self.next[1]

    where = f"{settings.endpoint.rstrip('/')}/v1/traces"
    exporter = OTLPSpanExporter(where, headers=headers, timeout=settings.timeout_s)
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, id_generator=Given(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=WAITING_SPANS, schedule_delay_millis=1_000))
    return provider


def _metering(settings: OtelSettings, headers: dict[str, str], resource: Resource) -> MeterProvider:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    exporter = OTLPMetricExporter(
        f"{settings.endpoint.rstrip('/')}/v1/metrics", headers=headers, timeout=settings.timeout_s
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=settings.interval_s * 1_000)
    return MeterProvider([reader], resource=resource, shutdown_on_exit=False)
