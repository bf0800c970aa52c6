"""Names that clients and providers choose (models, tiers), as they are stored. Pure."""

from __future__ import annotations

NAME_CHARS, NAME_BYTES = 200, 360
"""They are cut to this, in characters and as UTF-8: PostgreSQL's index rows end at 2,704 bytes, and the index of
`usage_series` has seven of them."""


def clean(name: str) -> str:
    """A name as it can be stored: no NUL (PostgreSQL has no place for it), at most NAME_CHARS and NAME_BYTES."""
    if name.isascii():
        return name.replace("\0", "")[:NAME_CHARS]
    kept = name.replace("\0", "")[:NAME_CHARS].encode("utf-8", "replace")
    return kept[:NAME_BYTES].decode("utf-8", "ignore")
