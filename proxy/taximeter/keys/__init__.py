"""Proxy keys, from the rule over the file to the API."""
