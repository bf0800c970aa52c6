"""The data plane, run in each worker: a bare ASGI application that relays, meters and journals."""
