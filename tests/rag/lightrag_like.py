"""LightRAG's ways with texts, without LightRAG: a queue whose workers keep their context, a buffer embedded later."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from taximeter_rag.tags import current

Asked = tuple[Any, ...]
"""Who asked: workspace, track, document."""


def one_worker(workers: list[asyncio.Task[None]]) -> Callable[..., Any]:
    """`priority_limit_async_func_call` up to 1.5.4: a worker, started by the first call, in that one's context."""

    def limit() -> Callable[..., Any]:
        def decorate(func: Callable[..., Any]) -> Callable[..., Any]:
            queue: asyncio.Queue[Any] = asyncio.Queue()
            started: list[asyncio.Task[None]] = []

            async def work() -> None:
                while True:
                    future, args, options = await queue.get()
                    try:
                        future.set_result(await func(*args, **options))
                    except RuntimeError as error:
                        future.set_exception(error)

            async def ask(*args: Any, **options: Any) -> Any:
                if not started:
                    started.append(asyncio.create_task(work()))
                    workers.extend(started)
                future = asyncio.get_running_loop().create_future()
                queue.put_nowait((future, args, options))
                return await future

            return ask

        return decorate

    return limit


class Refused(RuntimeError):
    """The provider answers with an error, and bills nothing."""


class Model:
    """An embedding function that bills each text to the scope it is called in."""

    def __init__(self) -> None:
        self.billed: Counter[tuple[Asked, str]] = Counter()
        self.refusing = 0

    async def embed(self, texts: list[str]) -> list[list[float]]:
        scope = current()
        await asyncio.sleep(0)
        if self.refusing:
            self.refusing -= 1
            raise Refused
        asked = () if scope is None else (scope.workspace, scope.track, scope.document)
        self.billed.update((asked, text) for text in texts)
        return [[float(len(text))] for text in texts]


class Buffered:
    """LightRAG's vector storages: `upsert` remembers, the last for an id stays; whoever flushes first embeds it all.

    `asked` is the truth: each record says itself who stored it, and what was embedded is counted there.
    """

    def __init__(self, embed: Callable[[list[str]], Any], batch: int) -> None:
        self.embed, self.batch = embed, batch
        self.pending: dict[str, dict[str, Any]] = {}
        self.asked: Counter[tuple[Asked, str]] = Counter()
        self.surplus: set[tuple[Asked, str]] = set()
        """What a refused flush may have embedded already: it is embedded, and billed, again."""
        self.lock = asyncio.Lock()

    async def upsert(self, data: dict[str, dict[str, Any]]) -> None:
        async with self.lock:
            for key, record in data.items():
                self.pending[key] = {**record, "vector": None}

    async def vectors(self, keys: list[str]) -> None:
        """Read the vectors of records; those not embedded yet are embedded now, for whoever reads."""
        async with self.lock:
            await self._embed([self.pending[key] for key in keys if key in self.pending])

    async def flush(self) -> None:
        async with self.lock:
            await self._embed(list(self.pending.values()))
            self.pending.clear()

    async def _embed(self, records: list[dict[str, Any]]) -> None:
        records = [record for record in records if record["vector"] is None]
        texts = [record["content"] for record in records]
        batches = [texts[at : at + self.batch] for at in range(0, len(texts), self.batch)]
        truth = [(record["asked_by"], str(record["content"])) for record in records]
        answers = await asyncio.gather(*(self.embed(batch) for batch in batches), return_exceptions=True)
        if refused := next((each for each in answers if isinstance(each, BaseException)), None):
            self.surplus.update(truth)
            raise refused
        rows = [row for answer in answers if not isinstance(answer, BaseException) for row in answer]
        assert rows == [[float(len(text))] for text in texts]  # each text has its own vector back
        for record, row in zip(records, rows, strict=True):
            record["vector"] = row
        self.asked.update(truth)
