"""Whose text is embedded: LightRAG buffers texts of several documents and embeds them in one request, later.

Each text's scope is remembered when it is handed to a vector storage; a mixed batch becomes one request a scope.
"""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from taximeter_rag.tags import HEADERS, Scope, current, metered

QUERY = "query"
"""The task of a query. What a query embeds is its own, whatever document has the same words."""
REMEMBERED_TEXTS = 50_000
"""Enough for what waits between two flushes; a digest and a scope each, so some megabytes at most."""


class Owners:
    """Text -> the scope it was stored in, the latest first to stay."""

    def __init__(self, limit: int = REMEMBERED_TEXTS) -> None:
        self._scopes: OrderedDict[bytes, Scope] = OrderedDict()
        self._limit = limit

    def note(self, records: Any) -> None:
        """Remember the contents of `upsert({id: {"content": text, …}})` as the current scope's."""
        scope = current()
        if scope is None or not isinstance(records, Mapping):
            return
        for record in records.values():
            text = record.get("content") if isinstance(record, Mapping) else None
            if isinstance(text, str):
                key = _digest(text)
                self._scopes[key] = scope
                self._scopes.move_to_end(key)
        while len(self._scopes) > self._limit:
            self._scopes.popitem(last=False)

    def groups(self, texts: list[Any]) -> list[tuple[Scope | None, list[int]]]:
        """The places of a batch's texts by whose they are; a text nobody stored is the current scope's."""
        here = current()
        found: dict[tuple[Any, ...], tuple[Scope | None, list[int]]] = {}
        for place, text in enumerate(texts):
            scope = self._scopes.get(_digest(text), here) if isinstance(text, str) else here
            found.setdefault(_tags(scope), (scope, []))[1].append(place)
        return list(found.values())


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _tags(scope: Scope | None) -> tuple[Any, ...]:
    return () if scope is None else tuple(getattr(scope, name) for name in HEADERS)


def split(func: Callable[..., Any], owners: Owners) -> Callable[..., Any]:
    """An embedding function that asks once for each scope in its batch, one after the other (a slot of its queue)."""

    @functools.wraps(func)
    async def embed(texts: Any, *args: Any, **options: Any) -> Any:
        here = current()
        if not isinstance(texts, list) or (here is not None and here.task == QUERY):
            return await func(texts, *args, **options)
        groups = owners.groups(texts)
        if len(groups) == 1:
            with metered.within(groups[0][0]):
                return await func(texts, *args, **options)
        import numpy  # type: ignore[import-not-found]  # LightRAG's embedding functions answer its arrays

        rows: list[Any] = [None] * len(texts)
        for scope, places in groups:
            with metered.within(scope):
                answer = await func([texts[place] for place in places], *args, **options)
            for place, row in zip(places, answer, strict=True):
                rows[place] = row
        return numpy.array(rows)

    return embed


def remember(storage: Any, owners: Owners) -> None:
    """Let a vector storage tell what is stored in it."""
    original = storage.upsert

    @functools.wraps(original)
    async def upsert(data: Any, *args: Any, **options: Any) -> Any:
        owners.note(data)
        return await original(data, *args, **options)

    storage.upsert = upsert
