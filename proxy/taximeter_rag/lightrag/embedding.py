"""Whose text is embedded: LightRAG buffers texts of several documents and embeds them in one request, later.

Each text bears the scope it was stored in through LightRAG's buffers, batches and queues; nothing is looked up by what
a text says, because two customers may say the same. A mixed batch becomes one request a scope.

The rule for equal texts: each is charged to who stored it. Where LightRAG makes one record of two (an entity of several
documents), the last to store it before it is embedded pays: another document of the same LightRAG, so of the same
workspace, never another's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taximeter_rag.lightrag.watch import watched
from taximeter_rag.tags import HEADERS, Scope, current, metered


class Owned(str):
    """A text with the scope it was stored in. It pickles as a plain text."""

    __slots__ = ("scope",)
    scope: Scope

    def __new__(cls, text: str, scope: Scope) -> Owned:
        made = super().__new__(cls, text)
        made.scope = scope
        return made

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)

    def __copy__(self) -> Owned:
        return self

    def __deepcopy__(self, _: Any) -> Owned:
        return self


def owned(records: Any) -> Any:
    """`{id: {"content": text, …}}` as the current scope's; outside any scope, nobody's."""
    if not isinstance(records, Mapping):
        return records
    scope = current()
    return {key: _owned(record, scope) for key, record in records.items()}


def _owned(record: Any, scope: Scope | None) -> Any:
    text = record.get("content") if isinstance(record, Mapping) else None
    if not isinstance(text, str):
        return record
    return {**record, "content": str(text) if scope is None else Owned(text, scope)}


def groups(texts: Sequence[Any]) -> list[tuple[Scope | None, list[int]]]:
    """The places of a batch's texts by whose they are; a text that was not stored is its asker's (a query's)."""
    here = current()
    found: dict[tuple[Any, ...], tuple[Scope | None, list[int]]] = {}
    for place, text in enumerate(texts):
        scope = text.scope if isinstance(text, Owned) else here
        found.setdefault(_tags(scope), (scope, []))[1].append(place)
    return list(found.values())


def _tags(scope: Scope | None) -> tuple[Any, ...]:
    return () if scope is None else tuple(getattr(scope, name) for name in HEADERS)


def split(func: Callable[..., Any]) -> Callable[..., Any]:
    """An embedding function that asks once for each scope in its batch, one after the other (a slot of its queue)."""
    func = watched(func, "embedding")

    @functools.wraps(func)
    async def embed(texts: Any, *args: Any, **options: Any) -> Any:
        batches = groups(texts) if isinstance(texts, list) else []
        rows: list[Any] = [None] * len(texts)
        answer: Any = None
        for scope, places in batches:
            with metered.within(scope):
                answer = await func([_plain(texts[place]) for place in places], *args, **options)
            if len(batches) == 1:
                return answer
            for place, row in zip(places, answer, strict=True):
                rows[place] = row
        return _like(answer, rows) if batches else await func(texts, *args, **options)

    return embed


def _plain(text: Any) -> Any:
    return str(text) if isinstance(text, Owned) else text


def _like(answer: Any, rows: list[Any]) -> Any:
    """Rows in the shape of an answer: LightRAG's embedding functions give arrays of numpy."""
    if not hasattr(answer, "dtype"):
        return rows
    import numpy  # type: ignore[import-not-found]  # there, as it made the answer

    return numpy.array(rows)


def own(storage: Any) -> None:
    """Let a vector storage keep with each text whose it is."""
    original = storage.upsert

    @functools.wraps(original)
    async def upsert(data: Any, *args: Any, **options: Any) -> Any:
        return await original(owned(data), *args, **options)

    storage.upsert = upsert
