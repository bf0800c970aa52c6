"""The data port: a request of a client and its answer."""
