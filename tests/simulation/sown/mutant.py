"""A bug that is sown to see whether the simulation finds it: one change."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One bug."""

    name: str
    """What the product does wrong with it."""
    where: str
    """`module:function`, `module:Class.method`, or `module:_SCRIPT` of a Lua script; after `taximeter.`."""
    text: str
    instead: str
