"""What a dead writer left behind: its torn tail cut off, its open calls settled, its file ended (DESIGN §4).

The lines are appended to the file itself, so these records take the same way to every sink as all others.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable

from taximeter.budgets.charges import Held, charge
from taximeter.core.bounds import MAX_COST_NUSD
from taximeter.core.lines import End, Line, Tick
from taximeter.core.prices import Why
from taximeter.core.record import SATURATED, Open, Outcome, Record, Source
from taximeter.journal.format import UNREADABLE, close_line, decode_line, encode
from taximeter.journal.skimmed import InFlight
from taximeter.journal.tail import Tail

log = logging.getLogger(__name__)

Price = Callable[[Record], tuple[int | None, str | None]]
"""cost_nusd and price_ref of a record."""


def close_open_calls(fd: int, tail: Tail, *, now_us: int, price: Price | None = None) -> int:
    """Settle every open call of a file whose lock `fd` holds and which `tail` has read to its end; returns how many.

    It does not sync. Raises OSError where the disk refuses; what is written by then is whole and can be read on.
    """
    size = os.fstat(fd).st_size
    if size > tail.offset:
        log.warning("journal %s: an unfinished line of %d bytes is cut off", tail.path, size - tail.offset)
        os.ftruncate(fd, tail.offset)
    if not tail.begun:  # a power loss kept the name, but no line
        tail.path.unlink()
        return 0
    size, seq = tail.offset, tail.seq
    for (request_id, attempt), call in tail.calls.items():
        seq += 1
        record = interrupted(call, request_id, attempt, ended_at=tail.last_at)
        record.event_id = f"{tail.journal_id}:{seq}"
        if price is not None:
            record.cost_nusd, record.price_ref = price(record)
            if record.cost_nusd is None and record.input_tokens is None and record.output_tokens is None:
                record.unpriced_reason = Why.USAGE_UNKNOWN
        tick = _tick(call)
        if tick is not None and tick.bound_tokens is not None:
            held = Held(tick.bound_tokens, tick.bound_cost_nusd, sent=True)
            held.output_tokens, held.audio_ms = tick.bound_output_tokens, tick.bound_audio_ms or 0
            charge(record, held)
            if record.cost_nusd == MAX_COST_NUSD:
                record.cost_note = SATURATED
        size = append(fd, size, close_line(record))
    append(fd, size, encode(Line(end=End(seq=seq, at=now_us))))
    if tail.calls:
        log.warning("journal %s: its writer is gone, %d open calls are settled", tail.path, len(tail.calls))
    return len(tail.calls)


def interrupted(call: InFlight, request_id: str, attempt: int, *, ended_at: int) -> Record:
    """The record of a call whose process died: what the last tick knew, as estimated; without a tick, nothing.

    `ended_at`: the writer's last sign of life (µs). When the call really ended nobody knows, nor how long it took.
    """
    record = _opening(call, request_id, attempt, ended_at)
    tick = _tick(call)
    record.ended_at = max(ended_at, record.started_at)
    record.outcome = Outcome.INTERRUPTED
    if tick is None:
        return record
    record.partial = tick.response_bytes > 0
    record.response_bytes = tick.response_bytes
    record.input_tokens, record.output_tokens = tick.input_tokens, tick.output_tokens
    if tick.input_tokens is not None:
        record.input_source = Source.ESTIMATED
    if tick.output_tokens is not None:
        record.output_source = Source.ESTIMATED
    known = [tokens for tokens in (tick.input_tokens, tick.output_tokens) if tokens is not None]
    record.total_tokens = sum(known) if known else None
    return record


def _opening(call: InFlight, request_id: str, attempt: int, at: int) -> Open:
    try:
        opening = decode_line(call.opening).open
    except UNREADABLE:
        opening = None
    if opening is not None:
        return opening
    return Open(  # only its key could be read: the call counts all the same
        request_id=request_id,
        attempt=attempt,
        started_at=at,
        workspace=call.workspace,
        track=call.track,
        upstream="unknown",
        provider="unknown",
        api="other",
    )


def _tick(call: InFlight) -> Tick | None:
    try:
        return decode_line(call.tick).tick if call.tick is not None else None
    except UNREADABLE:
        return None


def append(fd: int, size: int, line: bytes) -> int:
    """Write one line whole at a file's end, at `size`; returns the new size. Raises OSError, the file as it was."""
    if os.write(fd, line) != len(line):
        os.ftruncate(fd, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return size + len(line)
