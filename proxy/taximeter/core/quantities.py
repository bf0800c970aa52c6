"""What few calls use: tools of the provider, what is billed by the piece or by time, rarer kinds of tokens. Pure.

It is summed beside what every roll-up keeps: by kind, not a column each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from taximeter.core.record import Record

UNITS = {
    "web_search_requests": "requests",
    "file_search_requests": "requests",
    "code_interpreter_sessions": "sessions",
    "maps_requests": "requests",
    "image_generations": "images",
    "images": "images",
    "input_characters": "characters",
    "pages": "pages",
    "annotated_pages": "pages",
    "video_input_tokens": "tokens",
    "cached_audio_input_tokens": "tokens",
    "cached_image_input_tokens": "tokens",
    "image_output_tokens": "tokens",
    "video_output_tokens": "tokens",
    "audio_ms": "ms",
    "video_ms": "ms",
}
"""Kind -> what it is counted in. Kinds are members of a record; durations are in milliseconds."""
_SIZED = frozenset(("images", "video_ms"))
_COUNTS = tuple(kind for kind in UNITS if not kind.endswith("_ms"))
_is_variant = re.compile(r"[\w.:+-]{1,24}( [\w.:+-]{1,24})?", re.ASCII).fullmatch


class Quantity(NamedTuple):
    """How much of a kind."""

    kind: str
    variant: str
    """Size and quality of images and video, as far as they are told; "" of anything else."""
    amount: int


def uses_any(r: Record) -> bool:
    """Whether a record has any of them; asked of every record, of which few have."""
    # Spelt out: a loop over the names takes five times as long.
    return bool(
        r.web_search_requests or r.file_search_requests or r.code_interpreter_sessions or r.maps_requests
        or r.image_generations or r.images or r.input_characters or r.pages or r.annotated_pages
        or r.video_input_tokens or r.cached_audio_input_tokens or r.cached_image_input_tokens
        or r.image_output_tokens or r.video_output_tokens or r.seconds or r.video_seconds
    )  # fmt: skip


def quantities(record: Record) -> Iterator[Quantity]:
    """Those of a call that are known and not 0."""
    if record.kind != "usage":
        return
    for kind in _COUNTS:
        amount = getattr(record, kind)
        if amount:
            yield Quantity(kind, _variant(record) if kind in _SIZED else "", amount)
    if record.seconds:
        yield Quantity("audio_ms", "", round(record.seconds * 1_000))
    if record.video_seconds:
        yield Quantity("video_ms", _variant(record), round(record.video_seconds * 1_000))


def _variant(record: Record) -> str:
    """What a client says may be anything: of that only what looks like a size or a quality."""
    named = " ".join(name for name in (record.media_size, record.media_quality) if name)
    return named if not named or _is_variant(named) else "other"
