"""Where an API's answers tell what they used, and by which names: the half of a dialect's row that answers need."""

from __future__ import annotations

import msgspec

from taximeter.flavors.usage import openai
from taximeter.flavors.usage.conventions import Convention

MEMBERS_OF_ERRORS = (b"[DONE]", b"error")


class Row(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All names are JSON members; a dot goes into an object, or into each of a list."""

    source: str = ""
    """Where the provider documents it."""
    usage: tuple[str, ...] = ("usage",)
    """Members that hold the usage object, at the top or in an envelope."""
    envelopes: tuple[str, ...] = ()
    """Members whose object is looked into as if it were the top (`response`, `message` …)."""
    flat: tuple[str, ...] = ()
    """Members of a usage object that stand at the top of the answer itself."""
    heads: tuple[tuple[bytes, str], ...] = ()
    """Headers that hold a figure of `Reading` which the body does not tell."""
    read: Convention = openai.read
    """From the usage object to figures; which field is which stands in `usage/fields.py`."""
    model: tuple[str, ...] = ("model",)
    id: tuple[str, ...] = ("id",)
    kind: tuple[str, ...] = ("type",)
    """Members that name an event's type."""
    ends: frozenset[str] = frozenset()
    """Types of the event that ends a stream."""
    fails: frozenset[str] = frozenset(("error",))
    """Types of an event that tells an error."""
    done: str = ""
    """The member that is true in a stream's last line."""
    watch: tuple[str, ...] = ()
    """Members beside `usage` and `flat` for which a stream's chunk has to be decoded."""
    marks: tuple[bytes, ...] = MEMBERS_OF_ERRORS
    """And what else, found in a chunk, makes it worth decoding."""
    text: tuple[str, ...] = ()
    """Where the text the model wrote stands, for local counting; `choices`: as in a chat answer."""
    text_kinds: tuple[str, ...] = ()
    """Only events of these types have text, where there are others."""
    watched: tuple[tuple[bytes, bytes, bytes], ...] = ()
    """`usage`, `flat` and `watch` as bytes: a member, and the two ways in which its null is written."""

    def __post_init__(self) -> None:
        keys = [b'"%s"' % name.encode() for name in (*self.usage, *self.flat, *self.watch)]
        msgspec.structs.force_setattr(self, "watched", tuple((key, key + b":null", key + b": null") for key in keys))
