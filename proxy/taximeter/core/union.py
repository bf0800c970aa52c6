"""Copies of what several nodes store, as one: the rule keys and budgets share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, Protocol, TypeVar

import msgspec


class Kept(Protocol):
    """What is never removed, only ended."""

    @property
    def id(self) -> str: ...
    @property
    def created_at(self) -> int: ...


_Kept = TypeVar("_Kept", bound=Kept)


def _first(one: _Kept, _: _Kept) -> _Kept:
    return one


def union(
    copies: Iterable[Iterable[_Kept]],
    end: Literal["ended_at", "revoked_at"],
    newer: Callable[[_Kept, _Kept], _Kept] = _first,
) -> list[_Kept]:
    """Everything in any copy, oldest first. `end`: the field that says when one ended (µs; 0: it is in force), which
    holds as soon as any copy says so, the earliest first. `newer`: which of two copies holds else, by an order of
    theirs alone; not given where nothing else ever changes.

    Idempotent, commutative and associative, so nodes may exchange copies in any order.
    """
    merged: dict[str, _Kept] = {}
    for copy in copies:
        for one in copy:
            known = merged.get(one.id)
            if known is None:
                merged[one.id] = one
                continue
            ends = [at for at in (getattr(known, end), getattr(one, end)) if at]
            merged[one.id] = msgspec.structs.replace(newer(known, one), **{end: min(ends, default=0)})  # type: ignore[type-var]
    return sorted(merged.values(), key=lambda one: (one.created_at, one.id))
