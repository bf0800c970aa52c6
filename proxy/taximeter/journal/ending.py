"""The end of a process that writes a journal: what it alone has would go with it."""

from __future__ import annotations

import asyncio

from taximeter.journal.lines import RETRY_S
from taximeter.journal.write import Journal

LAST_WAIT_S = 5.0
"""How long a disk that is full or fails is waited for."""


async def end(journal: Journal) -> None:
    """Shut a journal down once its lines are on disk and its files where others find them, or after `LAST_WAIT_S`."""
    for _ in range(int(LAST_WAIT_S / RETRY_S)):
        if journal.is_whole():
            break
        await asyncio.sleep(RETRY_S)
    journal.shutdown()
