"""Uploads that LightRAG has accepted and not yet written down, and tracks it has not finished though it says so.

It answers first and notes the documents afterwards; who asks for them in between must hear that they are pending.
An upload is open from before its answer until the request and all work it started in the background have ended.
Up to 1.5.4 it calls a document processed and then embeds what it left in the buffer; who asks in between waits.
Both stand in LightRAG's shared storage, so that every worker of a server knows them.
"""

from __future__ import annotations

import contextvars
import functools
import os
import sys
from collections.abc import MutableMapping
from typing import Any

NAMESPACE, WORKING = "taximeter_accepted", "taximeter_working"
"""Track -> the process that is at work on it."""
STORAGE = "lightrag.kg.shared_storage"
BACKGROUND = ("start_reserved_background_task", "start_committed_background_task")
"""From 1.5.7 on the work of an upload is a task of its own; before it is part of the request."""

_upload: contextvars.ContextVar[Upload | None] = contextvars.ContextVar("taximeter_rag_upload", default=None)


class Upload:
    """One upload request; `async with Upload(workspace):` around all that answers it."""

    def __init__(self, workspace: str | None) -> None:
        self.workspace = workspace
        self._works = 0
        self._track = ""
        self._shared: MutableMapping[str, int] = {}

    async def accepted(self, track: str) -> None:
        """Its answer is about to tell this track."""
        self._track, self._shared = track, await _open(self.workspace)
        self._shared[track] = os.getpid()

    def begin(self) -> None:
        self._works += 1

    def end(self) -> None:
        self._works -= 1
        if self._works == 0 and self._track:
            self._shared.pop(self._track, None)

    async def __aenter__(self) -> Upload:
        self.begin()
        self._token = _upload.set(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        _upload.reset(self._token)
        self.end()


async def is_open(workspace: str | None, track: str) -> bool:
    """Whether an upload of this track is still at work, in a process that lives."""
    process = (await _open(workspace)).get(track)
    return process is not None and _lives(process)


async def working(workspace: str | None) -> MutableMapping[str, int]:
    """Tracks whose documents are worked on -> the process that does."""
    return await _open(workspace, WORKING)


async def others_work(workspace: str | None, track: str) -> bool:
    """Whether another process, that lives, is at work on documents of the track."""
    process = (await working(workspace)).get(track)
    return process is not None and process != os.getpid() and _lives(process)


async def _open(workspace: str | None, namespace: str = NAMESPACE) -> MutableMapping[str, int]:
    storage = sys.modules[STORAGE]
    shared: MutableMapping[str, int] = await storage.get_namespace_data(namespace, workspace=workspace or "")
    return shared


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def hook_background() -> None:
    """Let the work that an upload starts in the background hold it open."""
    storage = sys.modules.get(STORAGE)
    for name in BACKGROUND:
        if hasattr(storage, name):
            setattr(storage, name, _holding(getattr(storage, name)))


def _holding(original: Any) -> Any:
    @functools.wraps(original)
    async def start(background_tasks: Any, *args: Any, work: Any, **options: Any) -> Any:
        upload = _upload.get()
        if upload is None:
            return await original(background_tasks, *args, work=work, **options)

        async def holding(*started: Any) -> Any:
            upload.begin()
            try:
                return await work(*started)
            finally:
                upload.end()

        return await original(background_tasks, *args, work=holding, **options)

    return start
