"""How a call is settled whose answer reported no usage, or did not come to its end: what is missing is counted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taximeter.core.record import Outcome, Source
from taximeter.gateway.metering.counting import Completed, Prompt
from taximeter.server.inline import in_task

if TYPE_CHECKING:
    from taximeter.gateway.metering.call import Call


def shorten_prompt(call: Call) -> None:
    """Drop a text too long to be kept; where it will have to be counted, count it first, in the pool."""
    if call.text is not None:
        silent = (call.record.upstream, call.record.api) in call.metering.silent
        prompt = _prompt_of(call)
        prompt.shorten(call.metering.tokenizers if silent or call.prepared.stream else None)
        call.text = b""


async def count_and_settle(call: Call, outcome: Outcome, error_code: str | None = None) -> None:
    """Tokenize, off the loop, what no figure was reported for; then settle."""
    meter = call.meter
    if call.closed or meter is None:
        return
    ended_ns = time.perf_counter_ns()
    reading = meter.reading()
    if call.text is None or call.record.status is None or call.record.status >= 400:
        call.settle(outcome, ended_ns, reading, error_code=error_code)
        return
    await in_task()
    counted = await _prompt_of(call).complete(
        call.metering.tokenizers, reading, meter, answer_bytes=call.record.response_bytes
    )
    partial = outcome is not Outcome.OK and not reading.finished
    call.settle(outcome, ended_ns, counted.reading, error_code=error_code, partial=partial, counted=counted)


def settle_now(call: Call, outcome: Outcome, error_code: str | None = None) -> None:
    """Settle with what is known this instant, where nothing can be awaited."""
    meter = call.meter
    if call.closed:
        return
    now_ns = time.perf_counter_ns()
    if meter is None:
        call.settle(outcome, now_ns, error_code=error_code)
        return
    meter.finish()
    reading = meter.reading()
    counted = None
    if call.text is not None and call.record.status == 200 and reading.output_tokens is None and not reading.uncounted:
        reading.output_tokens = meter.progress_tokens()
        if reading.output_tokens is not None:
            known = Source.NONE if reading.input_tokens is None else Source.REPORTED
            counted = Completed(reading, known, Source.ESTIMATED, None)
    call.settle(outcome, now_ns, reading, error_code=error_code, partial=not reading.finished, counted=counted)


def _prompt_of(call: Call) -> Prompt:
    """Made when it is needed, which it seldom is."""
    if call.prompt is None:
        model, provider = call.prepared.model, call.record.provider
        call.prompt = Prompt(call.flavor, call.text or b"", model, provider, call.tokenizer)
    return call.prompt
