"""Fetches what is billed later and nobody else fetches (`[[upstream]] collect`): for control, sent as a worker does."""
