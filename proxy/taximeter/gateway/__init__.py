"""The data plane, run in each worker: it relays, meters and journals."""
