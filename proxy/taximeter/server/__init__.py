"""The HTTP server under both ports: a strict connection, its bounds, an orderly start and end."""
