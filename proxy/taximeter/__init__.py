"""Taximeter: an OpenAI-compatible metering reverse proxy (see docs/design.md)."""

__version__ = "0.1.0"
