"""The plugin of one process: reads figures back, ends tracks, knows which documents are being worked on.

Nothing in it may break LightRAG: what goes wrong is a line in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Set
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from taximeter_rag import usage
from taximeter_rag.lightrag import accepted
from taximeter_rag.lightrag.answers import ENDED, Bills, Figures
from taximeter_rag.lightrag.settings import Settings
from taximeter_rag.reader import Reader, ReadError
from taximeter_rag.tags import REMEMBERED_CALLS, Noticed, Scope, safe

logger = logging.getLogger("lightrag")

INDEX, QUERY = "index", "query"
"""The tasks of what a document costs, and a question."""
READ_WAIT_S = 10.0
"""Longest an answer waits for calls of its track that are still being counted."""
END_WAIT_S = 60.0
"""Longest a track that has ended waits for its last calls (a client that left; late embeddings)."""
REMEMBERED_TRACKS = 1_000
REMEMBERED_DOCUMENTS = 10_000
LOOK_S = 1.0
"""How often one that waits for documents looks, where nothing tells it."""
ELSEWHERE_S = 0.1
"""How often one that waits for another worker looks."""
LISTED_S = 30.0
"""A list of documents, which a user interface asks for again and again, may be so old."""
LISTED_AT_ONCE = 4
CROWDED_S = (0.2, 0.5, 1.0, 2.0)
"""Pauses before the control port is asked again where too many waited there at once."""

Read = tuple[Figures | None, str]
"""What the control port told; or None, and why not."""
TOO_MANY = 429
_NEVER: tuple[float, Set[str], Bills] = (float("-inf"), frozenset(), Bills(None))
K = TypeVar("K")
V = TypeVar("V")


class Plugin:
    """See the module's docstring."""

    def __init__(self, settings: Settings, fault: str = "") -> None:
        self.settings = settings
        self.reader = Reader(settings.control_url, settings.token)
        self.by_document = False
        """The hooks of the pipeline fit; else only workspaces (and queries) are told apart."""
        self.fault = fault
        """Why nothing can be metered, if so."""
        self.missed: dict[str, str] = {}
        """Kinds of model whose bindings do not point at the proxy -> where they point."""
        self._calls: OrderedDict[tuple[str | None, str], deque[str]] = OrderedDict()
        self._noticed: OrderedDict[tuple[str | None, str | None, str], Noticed] = OrderedDict()
        self._listed: OrderedDict[tuple[str | None, str], tuple[float, Set[str], Bills]] = OrderedDict()
        self._active: Counter[tuple[str | None, str]] = Counter()
        self._runs: Counter[int] = Counter()
        """Runs of the pipeline at work, by their LightRAG's id()."""
        self._watching: dict[int, tuple[Any, Touched]] = {}
        self._claims: WeakValueDictionary[tuple[str | None, str], Any] = WeakValueDictionary()
        self._idle = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    # ── whose ────────────────────────────────────────────────────────────────────────────────────────────────

    def workspace(self, rag: Any) -> str | None:
        """The workspace tag of a LightRAG; None where it has none (the proxy then says: its key's, or `default`)."""
        name = getattr(rag, "workspace", None)
        return safe(name) if isinstance(name, str) and name else None

    def query(self, workspace: str | None, track: str) -> Scope:
        return Scope(workspace=workspace, track=track, task=QUERY)

    def document(self, rag: Any, doc_id: str, status_doc: Any) -> Scope:
        """The scope of a document in the pipeline; its track is the upload's, however late it is worked on."""
        workspace, track = self.workspace(rag), getattr(status_doc, "track_id", None)
        tag = safe(track) if isinstance(track, str) and track else None
        noticed: Noticed = _kept(self._noticed, (workspace, tag, safe(doc_id)), Noticed, REMEMBERED_DOCUMENTS)
        for watched, touched in self._watching.values():
            if watched is rag and tag is not None:
                touched.tracks.setdefault(tag, []).append(noticed)
        if tag is None:
            return Scope(workspace=workspace, document=safe(doc_id), task=INDEX, noticed=noticed)
        return Scope(workspace, tag, safe(doc_id), INDEX, calls=self.calls(workspace, tag), noticed=noticed)

    def calls(self, workspace: str | None, track: str) -> deque[str]:
        """The latest calls of a document track, shared by its documents."""
        return _kept(self._calls, (workspace, track), lambda: deque(maxlen=REMEMBERED_CALLS), REMEMBERED_TRACKS)

    @contextlib.contextmanager
    def watching(self, rag: Any, touched: Touched) -> Iterator[None]:
        """Write down the tracks of the documents that this LightRAG works on meanwhile."""
        self._watching[id(touched)] = (rag, touched)
        try:
            yield
        finally:
            del self._watching[id(touched)]

    def claim(self, workspace: str | None, track: str, owner: Any) -> None:
        """What a track uses is for `owner` to tell, as long as there is one."""
        self._claims[workspace, track] = owner

    def is_mine(self, workspace: str | None, track: str, asking: Any) -> bool:
        return self._claims.get((workspace, track), asking) is asking

    def past(self, scope: Scope) -> dict[str, str]:
        """Kinds of model whose calls for a document did not pass the proxy. Embeddings may still be to come."""
        found = scope.noticed.went_past()
        if "embedding" in self.missed:
            found.setdefault("embedding", self.missed["embedding"])
        return found

    def noticed(self, workspace: str | None, track: str, doc_id: str) -> dict[str, str]:
        """The same, as far as this process has seen."""
        noticed = self._noticed.get((workspace, safe(track), safe(doc_id)))
        return noticed.went_past() if noticed is not None else {}

    # ── figures ──────────────────────────────────────────────────────────────────────────────────────────────

    async def figures(self, scope: Scope) -> Read:
        """A track's figures; without a control port that has them, why, which is a line in the log too."""
        if self.fault:
            return None, self.fault
        for pause_s in (*CROWDED_S, None):
            try:
                return await self.reader.aread(scope, wait_s=READ_WAIT_S), ""
            except ReadError as error:
                if error.status != TOO_MANY or pause_s is None:
                    logger.warning("taximeter-rag: no figures for %s: %s", scope.track, error)
                    return None, str(error)
                await asyncio.sleep(pause_s)
        raise AssertionError("the last of these answers")

    async def document_figures(self, workspace: str | None, track: str, *, ended: bool) -> Read:
        """The figures of a document track; once all of it has ended, with the last embeddings of its batch."""
        scope = Scope(workspace=workspace, track=safe(track))
        scope.calls.extend(self.calls(workspace, safe(track)))
        if ended:
            await self._until_idle((workspace, safe(track)))
            return await self.figures(scope)
        if self.fault:
            return None, self.fault
        try:
            return await self.reader.atrack(safe(track), workspace, after=tuple(scope.calls)), ""
        except ReadError as error:
            logger.warning("taximeter-rag: no figures for %s: %s", track, error)
            return None, str(error)

    async def bills(self, workspace: str | None, track: str, *, ended: bool, costs: bool = True) -> Bills:
        """What a document track's documents used, and what they cost."""
        figures, why = await self.document_figures(workspace, track, ended=ended)
        usages: Mapping[str, Any] = {}
        if figures is not None and costs:
            with harmless("documents go without their cost"):
                usages = await self.reader.adocuments(safe(track), workspace)
        return Bills(
            figures, why, self.settings.proxy_url, usages, safe, lambda doc_id: self.noticed(workspace, track, doc_id)
        )

    async def many_bills(self, workspace: str | None, tracks: Mapping[str, Set[str]]) -> dict[str, Bills]:
        """What the documents of several tracks used, for lists; what was read of one is used again for a while.

        `tracks`: the documents of each that have ended. Of one that had not when its track was read, all is read again.
        """
        now_s, turn = time.monotonic(), asyncio.Semaphore(LISTED_AT_ONCE)

        async def read(track: str) -> Bills:
            async with turn:
                return await self.bills(workspace, track, ended=False, costs=False)

        def is_told(track: str) -> bool:
            read_s, ended, _ = self._listed.get((workspace, track), _NEVER)
            return read_s >= now_s - LISTED_S and tracks[track] <= ended

        missing = [track for track in tracks if not is_told(track)]
        for track, bills in zip(missing, await asyncio.gather(*map(read, missing)), strict=True):
            self._listed[workspace, track] = (now_s, tracks[track], bills)
        told = {track: self._listed[workspace, track][2] for track in tracks}
        while len(self._listed) > REMEMBERED_TRACKS:
            self._listed.popitem(last=False)
        return told

    # ── documents at work ────────────────────────────────────────────────────────────────────────────────────

    async def begun(self, scope: Scope) -> None:
        if scope.track is not None:
            self._active[scope.workspace, scope.track] += 1
            if self._active[scope.workspace, scope.track] == 1:
                with harmless("another worker may tell its figures too early"):
                    (await accepted.working(scope.workspace))[scope.track] = os.getpid()

    async def done(self, scope: Scope) -> None:
        if scope.track is not None:
            key = (scope.workspace, scope.track)
            self._active[key] -= 1
            if self._active[key] <= 0:
                del self._active[key]
                with harmless("another worker may wait for it"):
                    shared = await accepted.working(scope.workspace)
                    if key not in self._active:
                        shared.pop(scope.track, None)
            async with self._idle:
                self._idle.notify_all()

    @contextlib.asynccontextmanager
    async def running(self, rag: Any) -> AsyncIterator[None]:
        """A run of the pipeline; there is one at a time, and it takes all documents."""
        self._runs[id(rag)] += 1
        try:
            yield
        finally:
            self._runs[id(rag)] -= 1
            async with self._idle:
                self._idle.notify_all()

    async def documents_end(self, rag: Any, track: str) -> None:
        """Wait while a run of the pipeline is at work on documents of this track."""
        while self._runs[id(rag)]:
            documents = await rag.doc_status.get_docs_by_track_id(track)
            if _states(documents) <= ENDED:
                break
            async with self._idle:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._idle.wait(), LOOK_S)
        if self._runs[id(rag)]:
            await self._until_idle((self.workspace(rag), safe(track)))

    async def _until_idle(self, key: tuple[str | None, str]) -> None:
        """LightRAG 1.5.4 calls a document processed and then embeds what it left in the buffer, in any worker."""
        try:
            async with asyncio.timeout(READ_WAIT_S):
                async with self._idle:
                    await self._idle.wait_for(lambda: key not in self._active)
                with harmless("its figures may grow"):
                    while await accepted.others_work(*key):  # noqa: ASYNC110 - no event comes from another process
                        await asyncio.sleep(ELSEWHERE_S)
        except TimeoutError:
            logger.warning("taximeter-rag: %s is still being worked on; its figures may grow", key[1])

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────

    def query_ended(self, scope: Scope, figures: Figures | None) -> None:
        """Log what a query used and close its track. `figures` None: nobody has read them (the client left)."""
        if scope.calls:
            self.later(self._end(scope, figures))

    def document_ended(self, rag: Any, scope: Scope, track: str | None) -> None:
        """Once every document of the track has ended: log what they used, and close it."""
        if scope.track is not None and track is not None:
            self.later(self._end_documents(rag, scope, track))

    async def _end_documents(self, rag: Any, scope: Scope, track: str) -> None:
        documents = await rag.doc_status.get_docs_by_track_id(track)
        if _states(documents) <= ENDED and (scope.workspace, scope.track) not in self._active:
            await self._end(scope, None)

    async def _end(self, scope: Scope, figures: Figures | None) -> None:
        if figures is None:
            figures = await self.reader.aread(scope, wait_s=END_WAIT_S)
        logger.info("taximeter-rag: %s used\n%s", scope.track, usage.langfuse(figures["metrics"]))
        await self.reader.aclose_track(scope.track or "", scope.workspace)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this beside everything else."""
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            logger.warning("taximeter-rag: %s", error)

    async def finish(self) -> None:
        """Wait for what is still to be told, at the end of the server."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=READ_WAIT_S)


def _states(documents: Mapping[str, Any]) -> set[str]:
    return {str(getattr(each.status, "value", each.status)).lower() for each in documents.values()}


class Touched:
    """The tracks of documents that were worked on during an operation, and what was noticed of each document."""

    def __init__(self) -> None:
        self.tracks: dict[str, list[Noticed]] = {}


def _kept(known: OrderedDict[K, V], key: K, make: Callable[[], V], most: int) -> V:
    """A value that is made at first use, and stays while it is among the latest used."""
    if key not in known:
        known[key] = make()
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)
    return known[key]


class harmless:  # noqa: N801 - reads as a sentence
    """An error of ours is a line in the log, never LightRAG's."""

    def __init__(self, consequence: str) -> None:
        self.consequence = consequence

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if isinstance(error, Exception):
            logger.warning("taximeter-rag: %s (%s: %s)", self.consequence, type(error).__name__, error)
            return True
        return False
