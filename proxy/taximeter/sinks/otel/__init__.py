"""OpenTelemetry: GenAI metrics and one span a call, to an OTLP collector. Off unless otel.endpoint is set."""

from taximeter.sinks.otel.sink import Otel

__all__ = ["Otel"]
