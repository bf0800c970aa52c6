"""What one answer used, in one convention, whatever the provider's: a `Reading`.

Totals include their parts (input includes cached and cache-write tokens, output includes reasoning),
parts never exceed the whole, and a figure nobody reported is None, never 0 (DESIGN §3).
"""

from __future__ import annotations

import msgspec

MAX_COUNT = 2**40
"""Largest count believed, about 10**12: no call uses more, and sums and costs of such counts stay within 64 bits.

Anything larger is read as unknown."""


class Reading(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One answer's usage as its flavor read it. Token counts are 0..2**40 or None (not reported)."""

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_write_input_tokens_5m: int | None = None
    cache_write_input_tokens_1h: int | None = None
    audio_input_tokens: int | None = None
    image_input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    audio_output_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None
    search_units: int | None = None
    rerank_documents: int | None = None
    embedding_inputs: int | None = None
    web_search_requests: int | None = None
    seconds: float | None = None
    """Audio duration where the provider bills by time."""
    bare: bool = False
    """Input and output tokens are all the usage there is: no other count is set."""
    inconsistent: bool = False
    """The provider's own figures contradict each other; they are recorded as they came."""
    upstream_cost_nusd: int | None = None
    """The cost the provider itself reported, in nano-USD."""
    response_model: str | None = None
    upstream_request_id: str | None = None
    service_tier: str | None = None
    failed: bool = False
    """An error object inside a 200 answer."""
    finished: bool = False
    """The answer's own end was seen (terminal event, finish reason, or a whole JSON body)."""
    usage: msgspec.Raw = msgspec.Raw(b"null")
    """The provider's usage object as it came."""

    @property
    def reported(self) -> bool:
        """True where the provider said anything that can be billed."""
        return (
            self.input_tokens is not None
            or self.output_tokens is not None
            or self.search_units is not None
            or self.seconds is not None
        )


NOTHING = Reading()
