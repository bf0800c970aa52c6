"""The metering side of a call in progress: its meter, its prompt, and how it is settled.

Moves no bytes; `relay` does, and tells it what has come and how it ended.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from taximeter.core.record import Operation, Outcome, Source
from taximeter.core.usage import NOTHING
from taximeter.gateway.counting import Prompt

if TYPE_CHECKING:
    from taximeter.flavors.meter import Flavor, Meter, Prepared
    from taximeter.gateway.asgi import Gateway
    from taximeter.gateway.call import Call
    from taximeter.gateway.upstream import Upstream

log = logging.getLogger("taximeter.gateway")


class Metered:
    """A call and what is read of it. Each way of settling does nothing where the call is settled already."""

    __slots__ = ("_call", "_flavor", "_gate", "_meter", "_prepared", "_prompt", "_upstream")

    def __init__(self, gate: Gateway, call: Call, flavor: Flavor, prepared: Prepared, upstream: Upstream) -> None:
        self._gate = gate
        self._call = call
        self._flavor = flavor
        self._prepared = prepared
        self._upstream = upstream
        self._prompt: Prompt | None = None
        self._meter: Meter | None = None

    def _has_left(self) -> bool:
        """Whether the client is gone."""
        raise NotImplementedError

    def _keep_prompt(self, body: bytes) -> None:
        """Keep the text that may have to be counted; a long one is counted at once, in the pool, and dropped."""
        flavor, prepared, upstream, gate = self._flavor, self._prepared, self._upstream, self._gate
        if flavor.operation is Operation.OTHER:
            return
        self._prompt = Prompt(flavor, body, prepared.model, upstream.provider, upstream.settings.tokenizer)
        if len(body) > gate.settings.limits.count_prompt_bytes:
            needed = prepared.stream or (upstream.name, flavor.api) in gate.silent
            self._prompt.shorten(gate.tokenizers if needed else None)

    def _feed(self, meter: Meter, chunk: bytes) -> bytes:
        try:
            return meter.feed(chunk)
        except Exception:  # metering never breaks the relay
            log.exception("%s: a meter failed; the answer goes on, its usage is unknown", self._call.opening.request_id)
            return chunk

    def _settle_if_known(self) -> None:
        """Write the record, unless something still has to be counted: that comes after the answer's end."""
        call, meter, prompt = self._call, self._meter, self._prompt
        assert meter is not None  # noqa: S101
        reading = meter.reading()
        outcome = self._outcome(left=self._has_left())
        if prompt is not None and outcome is not Outcome.UPSTREAM_ERROR:
            lacking = prompt.lacks(reading)
            place = (self._upstream.name, self._flavor.api)
            if lacking:
                self._gate.silent.add(place)
                return
            if place in self._gate.silent:
                self._gate.silent.discard(place)
        settled_ns = time.perf_counter_ns()
        call.overhead_ns = (call.overhead_ns or 0) + settled_ns - (call.read_ns or settled_ns)
        call.settle(outcome, settled_ns, reading, prepared=self._prepared)

    def _outcome(self, *, left: bool) -> Outcome:
        """How an answer that came to its end ended."""
        status = self._call.status
        if status is not None and status >= 400:
            return Outcome.UPSTREAM_ERROR
        if left:
            return Outcome.CLIENT_LEFT
        return Outcome.OK

    async def _count_and_settle(self, outcome: Outcome, error_code: str | None = None) -> None:
        """Tokenize, off the loop, what no figure was reported for; then settle."""
        call, meter, prompt = self._call, self._meter, self._prompt
        if call.closed or meter is None:
            return
        ended_ns = time.perf_counter_ns()
        reading = meter.reading()
        if prompt is None or call.status is None or call.status >= 400:
            call.settle(outcome, ended_ns, reading, prepared=self._prepared, error_code=error_code)
            return
        counted = await prompt.complete(self._gate.tokenizers, reading, meter)
        call.settle(
            outcome,
            ended_ns,
            counted.reading,
            prepared=self._prepared,
            error_code=error_code,
            partial=outcome is not Outcome.OK and not reading.finished,
            input_source=counted.input_source,
            output_source=counted.output_source,
            tokenizer=counted.tokenizer,
        )

    def _settle_now(self, outcome: Outcome) -> None:
        """Settle with what is known this instant, where nothing can be awaited. Does nothing if settled already."""
        call, meter = self._call, self._meter
        if call.closed:
            return
        now_ns = time.perf_counter_ns()
        if meter is None:
            call.settle(outcome, now_ns, NOTHING, prepared=self._prepared)
            return
        meter.finish()
        reading, output_source = meter.reading(), None
        if reading.output_tokens is None and self._prompt is not None and call.status == 200:
            reading.output_tokens = meter.progress_tokens()
            output_source = None if reading.output_tokens is None else Source.ESTIMATED
        partial = not reading.finished
        call.settle(outcome, now_ns, reading, prepared=self._prepared, partial=partial, output_source=output_source)
