"""helm/taximeter/files/settings.json: the names of settings, with which the chart refuses a mistyped one at render."""

from __future__ import annotations

import json
from typing import Any

from msgspec import inspect as types

from taximeter.config import Settings


def chart_settings() -> str:
    """Sections as objects, `null` for a setting, an array of what is allowed where that is a choice."""
    return json.dumps(_tree(types.type_info(Settings)), indent=1) + "\n"


def _tree(kind: types.Type) -> dict[str, Any] | list[Any] | None:
    if isinstance(kind, types.ListType):
        tree = _tree(kind.item_type)
        return tree if isinstance(tree, dict) else None
    if isinstance(kind, types.LiteralType):
        return list(kind.values)
    if isinstance(kind, types.StructType):
        return {field.name: _tree(field.type) for field in kind.fields}
    return None
