"""The runaway breaker, from its rule over what is stored and measured to its API."""
