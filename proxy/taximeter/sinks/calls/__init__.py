"""The access log: an entry a call (`log.calls`)."""
