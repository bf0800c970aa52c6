"""Cohere's usage: `billed_units` is what it bills, `tokens` what its models saw, hidden preamble included.

The billed figure is the one recorded: it equals Cohere's own header `num_tokens` in every recording we know, while
`tokens` can be twenty times it. Source: https://docs.cohere.com/reference/chat (`meta.billed_units`, `usage`).
"""

from __future__ import annotations

from taximeter.core.usage import Reading
from taximeter.flavors.usage.counts import Fields, added, fields, first
from taximeter.flavors.usage.usual import exceeds


def is_cohere(usage: Fields) -> bool:
    """The object speaks Cohere's names."""
    return isinstance(usage.get("billed_units"), dict) or isinstance(usage.get("tokens"), dict)


def read(usage: Fields) -> Reading:
    """`meta` (v1, embed, rerank) or `usage` (v2 chat)."""
    billed, seen = fields(usage.get("billed_units")), fields(usage.get("tokens"))
    reading = Reading(
        input_tokens=first(billed, "input_tokens"),
        output_tokens=first(billed, "output_tokens"),
        search_units=first(billed, "search_units"),
        image_input_tokens=first(billed, "image_tokens"),
        cached_input_tokens=first(usage, "cached_tokens"),
        reasoning_output_tokens=first(seen, "reasoning_tokens"),
    )
    if reading.image_input_tokens:  # billed beside the text
        reading.input_tokens = added(reading.input_tokens, reading.image_input_tokens)
    if reading.cached_input_tokens and exceeds(first(seen, "input_tokens"), reading.input_tokens):
        reading.cached_input_tokens = None  # a part of `tokens` with its hidden preamble, not of what is billed
    if not billed:  # Xinference: only `tokens`
        reading.input_tokens = first(seen, "input_tokens")
        reading.output_tokens = first(seen, "output_tokens")
    reading.inconsistent = exceeds(reading.reasoning_output_tokens, reading.output_tokens)
    return reading
