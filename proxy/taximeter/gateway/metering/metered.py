"""The metering side of a call in progress: its meter, its prompt, and how it is settled.

Moves no bytes; `relay` does, and tells it what has come and how it ended.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from taximeter.core.record import Operation, Outcome, Source
from taximeter.core.usage import NOTHING
from taximeter.gateway.inline import in_task
from taximeter.gateway.metering.counting import Prompt, lacks

if TYPE_CHECKING:
    from taximeter.core.usage import Reading
    from taximeter.flavors.meter import Answer, Flavor, Meter, Prepared
    from taximeter.gateway.gate import Gateway
    from taximeter.gateway.metering.call import Call
    from taximeter.gateway.upstream.upstreams import Upstream

log = logging.getLogger("taximeter.gateway")


class Metered:
    """A call and what is read of it. Each way of settling does nothing where the call is settled already."""

    __slots__ = ("_body", "_call", "_flavor", "_gate", "_meter", "_prepared", "_prompt", "_upstream")

    def __init__(self, gate: Gateway, call: Call, flavor: Flavor, prepared: Prepared, upstream: Upstream) -> None:
        self._gate = gate
        self._call = call
        self._flavor = flavor
        self._prepared = prepared
        self._upstream = upstream
        self._body: bytes | None = None
        """What may have to be counted; None: nothing of this call ever is."""
        self._prompt: Prompt | None = None
        self._meter: Meter | None = None

    def _has_left(self) -> bool:
        """Whether the client is gone."""
        raise NotImplementedError

    def _keep_prompt(self, body: bytes) -> None:
        """Keep the text that may have to be counted; a long one is counted at once, in the pool, and dropped."""
        if self._flavor.operation is Operation.OTHER:
            return
        self._body = body
        if len(body) > self._gate.settings.limits.count_prompt_bytes:
            silent = (self._upstream.name, self._flavor.api) in self._gate.silent
            prompt = self._its_prompt()
            prompt.shorten(self._gate.tokenizers if silent or self._prepared.stream else None)
            self._body = b""

    def _its_prompt(self) -> Prompt:
        """Made when it is needed, which it seldom is."""
        if self._prompt is None:
            upstream, body = self._upstream, self._body or b""
            model, tokenizer = self._prepared.model, upstream.settings.tokenizer
            self._prompt = Prompt(self._flavor, body, model, upstream.provider, tokenizer)
        return self._prompt

    def _feed(self, meter: Meter, chunk: bytes) -> bytes:
        try:
            return meter.feed(chunk)
        except Exception:  # metering never breaks the relay
            log.exception("%s: a meter failed; the answer goes on, its usage is unknown", self._call.opening.request_id)
            return chunk

    def _read_whole(self, answer: Answer, body: bytes) -> Reading | None:
        """The reading of an answer that needs no meter, else None."""
        try:
            return self._flavor.whole(self._prepared, answer, self._upstream.provider, body)
        except Exception:  # metering never breaks the relay
            log.exception("%s: an answer could not be read at once", self._call.opening.request_id)
            return None

    def _settle_if_known(self, reading: Reading | None = None) -> None:
        """Write the record, unless something still has to be counted: that comes after the answer's end.

        `reading`: None where the meter has it.
        """
        call = self._call
        if reading is None:
            assert self._meter is not None  # noqa: S101
            reading = self._meter.reading()
        outcome = self._outcome(left=self._has_left())
        if self._body is not None and outcome is not Outcome.UPSTREAM_ERROR:
            silent, place = self._gate.silent, (self._upstream.name, self._flavor.api)
            if lacks(self._flavor.operation, reading):
                silent.add(place)
                return
            if silent:
                silent.discard(place)
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
        call, meter = self._call, self._meter
        if call.closed or meter is None:
            return
        ended_ns = time.perf_counter_ns()
        reading = meter.reading()
        if self._body is None or call.status is None or call.status >= 400:
            call.settle(outcome, ended_ns, reading, prepared=self._prepared, error_code=error_code)
            return
        await in_task()
        counted = await self._its_prompt().complete(self._gate.tokenizers, reading, meter)
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
        wanted = reading.output_tokens is None and not reading.impossible
        if wanted and self._body is not None and call.status == 200:
            reading.output_tokens = meter.progress_tokens()
            output_source = None if reading.output_tokens is None else Source.ESTIMATED
        partial = not reading.finished
        call.settle(outcome, now_ns, reading, prepared=self._prepared, partial=partial, output_source=output_source)
