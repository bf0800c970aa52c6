"""A record of which something cannot be written as it is: what of it can be."""

from __future__ import annotations

import enum

import msgspec

from taximeter.core.holds import LIMITED
from taximeter.core.record import Record

_KEPT_CHARS = 1024
"""What stays of a text that cannot be written as it is; the longest legitimate one, a model path, is far below."""


def salvaged(item: Record, *, opens: bool = False) -> Record:
    """A copy that can be written: texts cut and made Unicode, the provider's usage object and tags left out.

    A call must be counted even where something in it cannot be encoded; its figures are kept in any case.
    """
    changes: dict[str, object] = {}
    for name in item.__struct_fields__:
        value = getattr(item, name)
        if isinstance(value, str) and not isinstance(value, enum.Enum):
            changes[name] = value[:_KEPT_CHARS].encode("utf-8", "replace").decode()
    changes["tags"] = {name: item.tags[name] for name in sorted(LIMITED) if name in item.tags}
    if not opens:  # there it is not known yet
        changes["usage"] = msgspec.Raw(b"null")
    return msgspec.structs.replace(item, **changes)
