"""LightRAG as a library, without its server: the same tags, and the same figures read back.

tracked = TokenTrackingLightRAG(rag)
tracked.set_token_tracker(tracker)          # ours, or LightRAG's own
await tracked.ainsert("…")
print(tracker.get_usage())
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping
from datetime import UTC, datetime
from typing import Any

from taximeter_rag.lightrag import answers
from taximeter_rag.lightrag.activate import activate
from taximeter_rag.lightrag.pipeline import instrument
from taximeter_rag.lightrag.plugin import INDEX, READ_WAIT_S, Plugin, Touched, harmless, logger
from taximeter_rag.lightrag.settings import Settings
from taximeter_rag.lightrag.tracker import Books, TokenTracker, sums, tell, together
from taximeter_rag.middleware import new_track
from taximeter_rag.tags import Scope, metered, safe

__all__ = ["TokenTracker", "TokenTrackingLightRAG", "track_lightrag_operations"]

QUERIES = ("query", "query_llm", "query_data")
"""With and without their `a`; whatever else is public and works, works on documents."""


class TokenTrackingLightRAG:
    """A LightRAG whose operations are tracked; everything else of it is as it was.

    Every public method is: a query, an insert, one step of the pipeline, a deletion, an edit, in both their forms. What
    an operation used is added to the tracker when it returns or raises, each token once, whichever operation reads
    first: documents that were enqueued by one and processed by another count where they are processed, and documents
    of another wrapper of the same LightRAG are left to that one. An insert whose documents another run of the pipeline
    works on waits for them.

    Activates the plugin when nothing has (settings from the environment, or `settings`): with LightRAG before 1.5.5
    do that (`taximeter_rag.lightrag.activate()`) before the LightRAG is made. Raises ValueError where that was not
    done, and where no proxy is configured; an operation raises ReadError where the control port does not tell its
    figures.
    """

    def __init__(self, rag: Any, token_tracker: Any = None, *, settings: Settings | None = None) -> None:
        plugin = activate(settings)
        if plugin is None:
            raise ValueError("TAXIMETER_PROXY_URL is not set: there is no proxy to count tokens.")
        instrument(rag)
        self.rag, self.token_tracker = rag, token_tracker
        self.last: Mapping[str, Any] | None = None
        """The figures of the last operation that called a model, as the control port tells them."""
        self._plugin: Plugin = plugin
        self._books = Books()
        self._read_to: dict[str, str | None] = {}
        """The last call of each track when it was read."""

    def set_token_tracker(self, token_tracker: Any) -> None:
        self.token_tracker = token_tracker

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.rag, name)
        if name.startswith("_") or not inspect.ismethod(found):
            return found
        if inspect.iscoroutinefunction(found):
            return self._tracked(found, query=name.removeprefix("a") in QUERIES)
        if hasattr(self.rag, f"a{name}"):  # its form for programs without a loop
            return self._tracked_sync(found, query=name in QUERIES)
        return found

    def _tracked(self, method: Any, *, query: bool) -> Any:
        @functools.wraps(method)
        async def operation(*args: Any, **options: Any) -> Any:
            work = self._work(method, query)
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_exit(work.settled)
                options = await work.named(args, options)
                with metered.within(work.scope), self._plugin.watching(self.rag, work.touched):
                    answer = await method(*args, **options)
                    if work.track is not None and "insert" in method.__name__:
                        await self._plugin.documents_end(self.rag, work.track)
                return work.watched(answer)

        return operation

    def _tracked_sync(self, method: Any, *, query: bool) -> Any:
        @functools.wraps(method)
        def operation(*args: Any, **options: Any) -> Any:
            work = self._work(method, query)
            options = _apart(work.named(args, options))
            answer, failed = None, None
            try:
                with metered.within(work.scope), self._plugin.watching(self.rag, work.touched):
                    answer = method(*args, **options)
            except BaseException as error:
                failed = error
                raise
            finally:
                _apart(work.settled(type(failed) if failed else None, failed, None))
            return answer

        return operation

    def _work(self, method: Any, query: bool) -> Work:
        workspace, track = self._plugin.workspace(self.rag), new_track("query" if query else "operation")
        scope = self._plugin.query(workspace, track) if query else Scope(workspace, track, task=INDEX)
        return Work(self, method, scope)

    async def read(self, work: Work) -> None:
        """Tell the tracker what an operation used, on its own track and those of the documents it worked on."""
        read = [await self._read_own(work)] if work.scope.calls else []
        read += [await self._read_documents(work, track) for track in self._tracks(work)]
        if read:
            self.last = together(read)
        self._say_what_went_past(work)

    async def _read_own(self, work: Work) -> Mapping[str, Any]:
        figures = await self._plugin.reader.aread(work.scope, wait_s=READ_WAIT_S)
        self._tell(sums(figures), figures)
        return figures

    async def _read_documents(self, work: Work, track: str) -> Mapping[str, Any]:
        workspace, reader = work.scope.workspace, self._plugin.reader
        calls = tuple(self._plugin.calls(workspace, track))
        figures = await reader.atrack(track, workspace, after=calls, wait_s=READ_WAIT_S)
        if track not in self._books:  # what it used before is not this operation's
            later = await reader.atrack(track, workspace, since=work.began)
            self._books.begin(track, earlier(figures, later))
        self._plugin.claim(workspace, track, self)
        self._read_to[track] = calls[-1] if calls else None
        self._tell(self._books.news(track, figures), figures)
        return figures

    def _tell(self, news: Counter[str], figures: Mapping[str, Any]) -> None:
        if self.token_tracker is not None:
            tell(self.token_tracker, news, figures)

    def _tracks(self, work: Work) -> list[str]:
        """The tracks with something new; a document's last embeddings may come with another operation."""
        workspace = work.scope.workspace
        touched = [track for track in work.touched.tracks if self._plugin.is_mine(workspace, track, self)]
        known = [track for track in self._read_to if track not in touched]
        moved = [
            track
            for track in known
            if (calls := self._plugin.calls(workspace, track)) and calls[-1] != self._read_to[track]
        ]
        return [*touched, *moved]

    def _say_what_went_past(self, work: Work) -> None:
        past = dict(work.scope.noticed.went_past())
        for noticed in (each for group in work.touched.tracks.values() for each in group):
            past.update(noticed.went_past())
        if past:
            why = answers.reason(past, self._plugin.settings.proxy_url)
            logger.warning("taximeter-rag: %s: not metered", why)
            self.last = {**(self.last or {}), answers.UNKNOWN: why}
            if isinstance(self.token_tracker, TokenTracker):
                self.token_tracker.unknown_because = why

    async def begin(self, track: str, *, given: bool) -> None:
        """Documents are going to be enqueued on this track; one that was given may have been used before."""
        workspace = self._plugin.workspace(self.rag)
        self._plugin.claim(workspace, track, self)
        self._read_to.setdefault(track, None)
        if track not in self._books:
            self._books.begin(track, await self._plugin.reader.atrack(track, workspace) if given else None)


class Work:
    """One operation of a tracked LightRAG."""

    def __init__(self, tracked: TokenTrackingLightRAG, method: Any, scope: Scope) -> None:
        self.tracked, self.method, self.scope = tracked, method, scope
        self.touched = Touched()
        self.track: str | None = None
        """LightRAG's name for the documents it brings; None where it brings none."""
        self.began = datetime.now(UTC).isoformat()
        self._streams = False

    async def named(self, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
        """Its options, with the track that LightRAG would think of only later."""
        with contextlib.suppress(TypeError):  # wrong arguments: LightRAG says so itself
            bound = inspect.signature(self.method).bind(*args, **options)
            if "track_id" in inspect.signature(self.method).parameters and self.method.__name__ in BRINGING:
                given = bound.arguments.get("track_id")
                self.track = given or _generated(BRINGING[self.method.__name__])
                await self.tracked.begin(safe(self.track), given=bool(given))
                return options if given else {**options, "track_id": self.track}
        return options

    def watched(self, answer: Any) -> Any:
        """The answer; where it is a stream, it is settled when that ends."""
        stream = answer.get("llm_response") if isinstance(answer, dict) else None
        inside = stream.get("response_iterator") if isinstance(stream, dict) else answer
        if not hasattr(inside, "__aiter__"):
            return answer
        self._streams = True
        if isinstance(stream, dict):
            stream["response_iterator"] = self._to_its_end(inside)
            return answer
        return self._to_its_end(inside)

    async def _to_its_end(self, stream: Any) -> AsyncIterator[Any]:
        try:
            async for part in stream:
                yield part
        finally:
            await self.tracked.read(self)

    async def settled(self, kind: Any, error: BaseException | None, _: Any) -> bool:
        """At its end: what it used is read. What failed used something too, and its own error is the one to raise."""
        if error is not None:
            with harmless("what a failed operation used is not known yet"):
                await self.tracked.read(self)
        elif not self._streams:
            await self.tracked.read(self)
        return False


BRINGING = {"ainsert": "insert", "insert": "insert", "apipeline_enqueue_documents": "enqueue"}
"""Methods that bring documents, and how LightRAG begins their tracks."""


def _generated(prefix: str) -> str:
    from lightrag.utils import generate_track_id

    made: str = generate_track_id(prefix)
    return made


def earlier(all_of_it: Mapping[str, Any], later: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures of a track up to a moment: all of it less what came later."""
    metrics = {name: value - later["metrics"][name] for name, value in all_of_it["metrics"].items() if _count(value)}
    embedding, after = all_of_it["usage"]["embedding"], later["usage"]["embedding"]
    return {"metrics": metrics, "usage": {"embedding": {name: embedding[name] - after[name] for name in embedding}}}


def _count(value: Any) -> bool:
    return isinstance(value, int)


def _apart(work: Awaitable[Any]) -> Any:
    """Run something on a loop of its own, and leave the program's loop, which LightRAG keeps, as it is."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


@contextlib.asynccontextmanager
async def track_lightrag_operations(
    rag: Any, token_tracker: Any = None, *, settings: Settings | None = None
) -> AsyncIterator[TokenTrackingLightRAG]:
    """`async with track_lightrag_operations(rag, tracker) as tracked:`"""
    yield TokenTrackingLightRAG(rag, token_tracker, settings=settings)
