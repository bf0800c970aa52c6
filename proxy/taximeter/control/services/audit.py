"""The audit log, written by whoever changes something: brought into the history, and read from there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from taximeter.core.audit import AuditEntry, AuditFilters
from taximeter.node.audit import AuditLog


class AuditHistory(Protocol):
    """What is asked of history (see its methods)."""

    async def add_audit(self, entries: Sequence[AuditEntry]) -> None: ...

    async def audit(
        self, asked: AuditFilters, limit: int = 100, page: str | None = None
    ) -> tuple[list[AuditEntry], str | None]: ...


class AuditTrail:
    """Brings entries from this node's file into the history, one round at a time."""

    def __init__(self, log: AuditLog, history: AuditHistory) -> None:
        self._log = log
        self._history = history
        self._lock = asyncio.Lock()

    async def file(self) -> None:
        """Bring in what is not there yet. Raises HistoryUnavailable, OSError: it stays in the file then."""
        async with self._lock:
            while entries := await asyncio.to_thread(self._log.taken):
                await self._history.add_audit(entries)
                await asyncio.to_thread(self._log.let_go)

    async def entries(self, asked: AuditFilters, limit: int, page: str | None) -> tuple[list[AuditEntry], str | None]:
        """The newest first, this node's latest included. Raises HistoryUnavailable, BadRequest."""
        if page is None:
            await self.file()
        return await self._history.audit(asked, limit, page)


def named(keys: Sequence[str] | None) -> str:
    """The letters that something is done to, for an entry."""
    return "all" if keys is None else ",".join(keys)
