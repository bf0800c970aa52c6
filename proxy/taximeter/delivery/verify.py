"""Whether a journal file is the one that was delivered: one restored from a copy must not go on unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from taximeter.delivery.feed import RESTORED, Feed
from taximeter.journal.machine import boot_id, is_earlier
from taximeter.journal.mend import is_left_open, rest_of
from taximeter.journal.read import departs
from taximeter.sinks.sink import JournalKeeper

AT_ONCE = 16
"""Journals read for their digest in one step, newest first: after a long stop there may be hundreds of old ones."""


async def verify(keeper: JournalKeeper, name: str, feeds: Sequence[Feed]) -> None:
    """Compare files with what the sink of this name keeps of them; one that departs from that is halted.

    Not one that lost its end with its machine's power: what the sink has of that is kept for `journal.mend`.
    """
    some = feeds[-AT_ONCE:]
    states = await keeper.journals([feed.journal_id for feed in some])
    for feed in some:
        state = states.get(feed.journal_id)
        if state is not None and state.seq and state.digest:
            reason = await asyncio.to_thread(departs, feed.tail.path, state.seq, state.digest, ended=state.ended)
            if reason is not None and not await _lost_power(keeper, feed, state.seq):
                feed.halt(f"{reason}; {RESTORED}")
            elif state.ended:
                feed.had_ended = True
                feed.told_end.add(name)
            if reason is None and await asyncio.to_thread(is_left_open, feed.tail.path, boot_id()):
                await _mended(keeper, feed, state.seq)
        feed.verified.add(name)
        feed.sound = True


async def _lost_power(keeper: JournalKeeper, feed: Feed, seq: int) -> bool:
    """Whether a file is only shorter than it was, its machine was started since, and all that was in it is known."""
    rest = await asyncio.to_thread(rest_of, feed.tail.path)
    if not rest.begun:
        return True  # a power loss kept the name, but no line
    if rest.ended or rest.seq >= seq or not is_earlier(rest.boot, boot_id()):
        return False
    return await _known(keeper, feed, rest.whole, rest.whole_at) or await _known(keeper, feed, rest.seq, rest.last_at)


async def _mended(keeper: JournalKeeper, feed: Feed, seq: int) -> None:
    """Whoever mended a file may have died before it was ended. The lines it wrote fill the numbers, and tell nothing of
    the calls whose close lines were torn out before: they are open in it still, and over."""
    rest = await asyncio.to_thread(rest_of, feed.tail.path)
    if rest.begun and not rest.ended and rest.whole < seq:
        await _known(keeper, feed, rest.whole, rest.whole_at)


async def _known(keeper: JournalKeeper, feed: Feed, seq: int, since_us: int) -> bool:
    """Whether single records of that time are remembered; those behind `seq` are `feed.lost` then."""
    found = await keeper.beyond(feed.journal_id, seq, since_us)
    feed.lost = found or []
    return found is not None
