"""Alerts without Prometheus, from what is told over what is remembered and sent to the API."""
