"""A whole Taximeter with an admin token and some days of records, for whoever wants to break it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from closing import closed
from control_plane import embedding, record
from nodes import Node, node
from taximeter.keys.rule import digest
from taximeter.sinks.batch import Batch
from taximeter.sinks.history.sink import History

TOKEN = "the-admin-token"
ADMIN = {"authorization": f"Bearer {TOKEN}"}


@contextmanager
def running_node(directory: Path, **environ: str) -> Iterator[tuple[Node, str]]:
    """(the running node, the control port's URL). In the end it must still be the same control process, unhurt."""
    data_dir = directory / "data"
    data_dir.mkdir()
    asyncio.run(_fill(f"sqlite:///{data_dir / 'history.db'}"))
    with node(directory, TAXIMETER_AUTH__ADMIN_TOKEN_SHA256=digest(TOKEN), **environ) as running:
        runtime = running.start()
        control = running.child("control")
        yield running, f"http://{runtime.admin_listen}"
        assert "Traceback" not in running.log, running.log[-4_000:]
        assert running.child("control") == control


async def _fill(url: str) -> None:
    ended_at = time.time_ns() // 1_000  # a node forgets records that are 400 days old
    given = {"task": "q", "end_user": "u", "ended_at": ended_at}
    async with closed(History(url)) as history:
        await history.prepare()
        records = [record(n, track=f"t-{n % 3}", document=f"d-{n}", **given) for n in range(20)]
        records += [embedding(n, ended_at=ended_at) for n in range(20, 25)]
        for seq, each in enumerate(records, start=1):
            each.event_id = f"j1:{seq}"
        await history.deliver([Batch(journal_id="j1", after=0, upto=len(records), records=records)])
