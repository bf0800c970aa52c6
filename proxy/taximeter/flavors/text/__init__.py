"""Texts of a call: read, collected, changed. Pure."""
