"""The Prometheus sink: cells fed from the journal, and what /metrics says."""
