"""What a request asks to be made, as far as that is what it is billed by. Pure."""

from __future__ import annotations

import msgspec


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Of an API that is billed by the piece; None: the request does not say."""

    images: int | None = None
    size: str | None = None
    quality: str | None = None
    characters: int | None = None
    """Of the text to be spoken."""
    annotated: bool = False
    """Pages are to be described in a form of the client's own."""
    model: str | None = None
    """Where it is named otherwise than by `model`."""
