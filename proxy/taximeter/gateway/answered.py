"""What an answer's head says of how it comes. Pure."""

from __future__ import annotations

JSON = (b"application/json", b"application/json; charset=utf-8")
"""Says nothing about how the answer comes."""
_EVENTS = (b"event-stream", b"ndjson", b"jsonl", b"json-seq", b"stream+json", b"eventstream")


def streams(head: dict[bytes, bytes], *, asked: bool) -> bool:
    """Whether an answer is generated while it is read: as its own head says; what says nothing is as it was asked for.

    JSON of unknown length is both: an answer sent in chunks, and what Gemini streams as an array. Anything else of
    unknown length (speech, text) is worth no more than what its reader takes of it.
    """
    kind = head.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind.endswith(_EVENTS):
        return True
    if b"content-length" in head:
        return False
    return asked if not kind or kind.endswith((b"/json", b"+json")) else True


def length_of(head: dict[bytes, bytes]) -> int:
    """The content-length, or a number over every bound where there is none."""
    value = head.get(b"content-length")
    return int(value) if value else 1 << 62
