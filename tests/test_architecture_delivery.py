"""The way of one record from the journal to Redis, as docs/architecture.md walks it: a real one, followed by a tracer.

What is followed is a record of a node that runs: its file is open, its workspace, model and track have been counted
before, and Redis is as it was left. Not on the way, and so not here: what happens once (finding a file, asking a sink
where it is, meeting a workspace, making a key's name: `delivery/files.py`, `sinks/redis/positions.py`, `keys.py`), what
a clock does beside it (looking for dead writers, removing files, auditing), and whatever follows a failure.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from architecture import ROOT, lines, walked
from journals import call, journal, now_us
from taximeter.config import JournalSettings
from taximeter.delivery import Delivery, follow
from taximeter.sinks.redis.counters import Counters
from valkeys import kept_totals
from waits import HANG_S

HEADING = "From the journal to Redis"
MOST_FILES, MOST_LINES = 10, 1_800


@contextmanager
def followed() -> Iterator[set[str]]:
    """The files of ours of which any function runs in this thread, or in one begun meanwhile."""
    seen: set[str] = set()

    def called(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            seen.add(frame.f_code.co_filename)

    before = sys.getprofile()
    threading.setprofile(called)
    sys.setprofile(called)
    try:
        yield seen
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
        ours = {Path(name).relative_to(ROOT).as_posix() for name in seen if name.startswith(f"{ROOT}/")}
        seen.clear()
        seen.update(ours)


async def test_a_record_passes_just_the_files_of_the_walk(tmp_path: Path, valkey_url: str, monkeypatch) -> None:
    monkeypatch.setattr(follow, "TEND_S", 2 * HANG_S)
    monkeypatch.setattr(follow, "TIDY_S", 2 * HANG_S)
    counters = Counters(valkey_url)
    delivery = Delivery(tmp_path, [counters], settings=JournalSettings(), node="n", now_us=now_us)
    writer = await asyncio.to_thread(journal, tmp_path)  # where no loop runs it looks after nothing by itself
    running = asyncio.create_task(delivery.run())
    try:
        await asyncio.to_thread(call, writer, "before", workspace="walked", track="track")
        assert (await delivery.drain(HANG_S, ["redis"])).complete
        place, moves = delivery.place("redis"), delivery._follower.moves
        await asyncio.to_thread(call, writer, "followed", workspace="walked", track="track")
        with followed() as seen:
            async with asyncio.timeout(HANG_S):
                while sum(feed.cursors["redis"] for feed in delivery._files.by_id.values()) == place:
                    await moves.wait()
                    moves = delivery._follower.moves
        assert (await kept_totals(counters, "walked")).requests == 2
    finally:
        running.cancel()
        await asyncio.wait([running])
        await asyncio.to_thread(writer.shutdown)
        await counters.close()
    assert sorted(seen) == sorted(walked(HEADING))


def test_the_walk_is_short() -> None:
    files = walked(HEADING)
    assert len(files) <= MOST_FILES
    assert lines(files) <= MOST_LINES
