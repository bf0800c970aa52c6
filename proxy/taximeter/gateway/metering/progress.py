"""What is written of a call while it goes on: how far it has come, and the most it may use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taximeter.core.lines import Tick
from taximeter.gateway.metering.call import TICK_EVERY_NS

if TYPE_CHECKING:
    from taximeter.gateway.metering.call import Call


def tick(call: Call, now_ns: int) -> None:
    """Write down a long stream's progress, at most once a second."""
    call.tick_at_ns = now_ns + TICK_EVERY_NS
    _tick(call, now_ns, None if call.meter is None else call.meter.progress_tokens())


def hold(call: Call) -> bool:
    """Write down, before it is sent, the most it may use: should nobody learn what it did use, that is charged.

    False: the journal cannot be written now.
    """
    return _tick(call, time.perf_counter_ns(), None)


def _tick(call: Call, now_ns: int, output_tokens: int | None) -> bool:
    record, held = call.record, call.held
    return call.metering.journal.tick(
        call.file,
        Tick(
            request_id=record.request_id,
            attempt=record.attempt,
            at=record.started_at + (now_ns - call.started_ns) // 1000,
            response_bytes=record.response_bytes,
            output_tokens=output_tokens,
            bound_tokens=None if held is None else held.tokens,
            bound_cost_nusd=None if held is None else held.cost_nusd,
            bound_output_tokens=None if held is None else held.output_tokens,
            bound_audio_ms=None if held is None else held.audio_ms or None,
        ),
    )
