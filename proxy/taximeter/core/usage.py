"""What one answer used, in one convention, whatever the provider's: a `Reading`.

Totals include their parts (input includes cached and cache-write tokens, output includes reasoning),
parts never exceed the whole, and a figure nobody reported is None, never 0 (DESIGN §3).
"""

from __future__ import annotations

from operator import attrgetter

import msgspec

MAX_COUNT = 10**9
"""Largest count believed of one call: ten times the largest context window ever announced (100 million tokens), a
thousand times what most models take. What a batch used in all may be more, but it is read line by line.

A larger figure is no count of ours to keep: it is null, and the reading is `impossible` (see `believable`)."""

MAX_SECONDS = 10**7
"""Longest audio or video believed of one call: 115 days."""


class Reading(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One answer's usage as its flavor read it. Counts are 0..MAX_COUNT or None (not known)."""

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_write_input_tokens_5m: int | None = None
    cache_write_input_tokens_1h: int | None = None
    audio_input_tokens: int | None = None
    image_input_tokens: int | None = None
    video_input_tokens: int | None = None
    cached_audio_input_tokens: int | None = None
    cached_image_input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_output_tokens: int | None = None
    video_output_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None
    search_units: int | None = None
    rerank_documents: int | None = None
    embedding_inputs: int | None = None
    web_search_requests: int | None = None
    file_search_requests: int | None = None
    code_interpreter_sessions: int | None = None
    maps_requests: int | None = None
    image_generations: int | None = None
    """Images that another model made as a tool of this one."""
    seconds: float | None = None
    """Audio duration where the provider bills by time."""
    images: int | None = None
    """Images made."""
    input_characters: int | None = None
    """Of the text that was to be spoken."""
    pages: int | None = None
    """Of documents that were read."""
    annotated_pages: int | None = None
    """Those of them that were described in a form of the client's own."""
    video_seconds: float | None = None
    """Length of the video made."""
    media_size: str | None = None
    """Width and height of each image or video, as told or asked (`1024x1792`, `2K`); Perplexity's search context."""
    media_quality: str | None = None
    """Likewise (`hd`, `high`)."""
    plain: bool = False
    """It has none of the members that `gateway.metering.rest` writes down."""
    bare: bool = False
    """Input and output tokens are all the usage there is: no other count is set."""
    inconsistent: bool = False
    """The provider's own figures contradict each other, and are recorded as they came; or one is `impossible`."""
    impossible: bool = False
    """A figure was reported that no call can have: it is None here, stands in `usage` as it came, and nothing is
    counted in its place. What the call cost is not known then."""
    priced_in_part: bool = False
    """Part of the bill is at prices that are not this model's: what the whole cost is not known."""
    upstream_cost_nusd: int | None = None
    """The cost the provider itself reported, in nano-USD."""
    response_model: str | None = None
    upstream_request_id: str | None = None
    service_tier: str | None = None
    speed: str | None = None
    """`fast` where the provider sells speed beside tiers (Anthropic)."""
    region: str | None = None
    """Where the answer was made, where the provider tells and its price depends on it (Anthropic's `inference_geo`)."""
    deferred: str | None = None
    """The provider's id of what this answer only promises (a background response, a batch, a video): what it uses is
    told by that object, later. No figure stands here then, and nothing is counted in its place."""
    failed: bool = False
    """An error object inside a 200 answer."""
    finished: bool = False
    """The answer's own end was seen (terminal event, finish reason, or a whole JSON body)."""
    usage: msgspec.Raw = msgspec.Raw(b"null")
    """The provider's usage object as it came."""

    @property
    def uncounted(self) -> bool:
        """True where nothing may be counted in place of a figure that is missing."""
        return self.impossible or self.deferred is not None

    @property
    def reported(self) -> bool:
        """True where the provider's own usage says anything that can be billed."""
        return (
            self.input_tokens is not None
            or self.output_tokens is not None
            or self.search_units is not None
            or self.seconds is not None
            or self.pages is not None
        )

    @property
    def measured(self) -> bool:
        """True where anything is known that is billed by the piece or by time, not by tokens."""
        return (
            self.seconds is not None
            or self.images is not None
            or self.input_characters is not None
            or self.pages is not None
            or self.video_seconds is not None
        )


NOTHING = Reading()

COUNTS = (
    *(name for name in Reading.__struct_fields__ if name.endswith(("_tokens", "_tokens_5m", "_tokens_1h"))),
    "search_units",
    "rerank_documents",
    "embedding_inputs",
    "web_search_requests",
    "file_search_requests",
    "code_interpreter_sessions",
    "maps_requests",
    "image_generations",
    "images",
    "input_characters",
    "pages",
    "annotated_pages",
)
"""The members that are counts."""

DURATIONS = ("seconds", "video_seconds")
"""Those that are seconds."""

_counts = attrgetter(*COUNTS)


def believable(reading: Reading) -> Reading:
    """The same reading; where a figure of it is beyond what a call can have, without that figure and marked so."""
    for name, figure in zip(COUNTS, _counts(reading), strict=True):
        if figure is not None and figure > MAX_COUNT:
            setattr(reading, name, None)
            reading.impossible = reading.inconsistent = True
    for name in DURATIONS:
        lasted = getattr(reading, name)
        if lasted is not None and lasted > MAX_SECONDS:
            setattr(reading, name, None)
            reading.impossible = reading.inconsistent = True
    return reading
