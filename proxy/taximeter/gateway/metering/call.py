"""One upstream attempt from its `open` line to its `close` line: its meter, its prompt, and how it is settled.

Moves no bytes: `relay` does, hands over what has come and says how it ended. Knows nothing of sockets.
"""

from __future__ import annotations

import logging
import os
import time
from itertools import count
from typing import TYPE_CHECKING

from taximeter.budgets.charges import Held, charge
from taximeter.core.bounds import MAX_COST_NUSD
from taximeter.core.record import SATURATED, Open, Operation, Outcome, Record, Source, outcome_of
from taximeter.core.usage import NOTHING, Reading
from taximeter.flavors.dialects import UNMETERED
from taximeter.flavors.framing.body import chosen
from taximeter.flavors.meter import Flavor, Meter, Prepared
from taximeter.gateway.metering.counting import lacks
from taximeter.gateway.metering.rest import take_rest

if TYPE_CHECKING:
    from taximeter.flavors.meter import Answer
    from taximeter.gateway.metering.counting import Completed, Prompt
    from taximeter.gateway.metering.metering import Metering
    from taximeter.journal import JournalFile

log = logging.getLogger("taximeter.gateway")

TICK_EVERY_NS = 1_000_000_000

_worker_bits = os.urandom(4).hex()
_numbers = count()
_NOTHING_SENT = Prepared(body=b"")
_OK, _OTHER, _REPORTED = Outcome.OK, Operation.OTHER, Source.REPORTED  # an enum's members are looked up slowly


def new_request_id(now_us: int) -> str:
    """`req_` and 25 hex digits: time first, so ids sort by time and an index on them grows at its end."""
    return f"req_{now_us:013x}{_worker_bits}{next(_numbers) & 0xFFFF:04x}"


class Call:
    """An attempt in progress, settled exactly once whatever happens: settling again does nothing."""

    __slots__ = (
        "closed", "file", "flavor", "held", "meter", "metering", "overhead_ns", "prepared", "prompt", "read_ns",
        "record", "started_ns", "text", "tick_at_ns", "tokenizer",
    )  # fmt: skip

    def __init__(
        self,
        metering: Metering,
        record: Open,
        started_ns: int,
        flavor: Flavor = UNMETERED,
        prepared: Prepared = _NOTHING_SENT,
        *,
        text: bytes | None = None,
        tokenizer: str = "",
    ) -> None:
        """Writes the `open` line. `text`: the request's body, where it may have to be counted.

        Raises JournalError where the journal must not be outrun and cannot be written.
        """
        self.metering = metering
        self.flavor = flavor
        self.text = None if record.operation is _OTHER else text
        """None: nothing of this call is ever counted."""
        self.tokenizer = tokenizer
        self.prompt: Prompt | None = None
        self.prepared = prepared
        self.record = record
        """What is known of the call: as it is, its open line; as it will be at its end, its close line."""
        self.started_ns = started_ns
        self.meter: Meter | None = None
        """None before an answer has come, and for a whole one that is read at once."""
        self.read_ns: int | None = None
        """When the last of the answer was read."""
        self.overhead_ns: int | None = None
        self.tick_at_ns = started_ns + TICK_EVERY_NS
        """From when on a long stream's progress is to be written down again."""
        self.closed = False
        """Its record is written."""
        self.held: Held | None = None
        """What is held of its hard budgets, where it has any."""
        self.file: JournalFile = metering.journal.open(record)

    # ── what comes ───────────────────────────────────────────────────────────────────────────────────────────

    def read_whole(self, answer: Answer, body: bytes) -> Reading | None:
        """All of an answer has come: its reading, where it needs no meter; else None, and it is to be fed."""
        now_ns = time.perf_counter_ns()
        try:
            reading = self.flavor.whole(self.prepared, answer, self.record.provider, body)
        except Exception:  # metering never breaks the relay
            log.exception("%s: an answer could not be read at once", self.record.request_id)
            return None
        if reading is not None:
            self.read_ns = now_ns
            self.record.response_bytes = len(body)
        return reading

    def begin_answer(self, answer: Answer) -> Meter:
        """Meter an answer's parts from now on."""
        self.meter = meter = self.flavor.meter(self.prepared, answer, self.record.provider)
        return meter

    def feed(self, chunk: bytes, now_ns: int) -> bytes:
        """A part of the answer has come; returns what of it may go to the client now."""
        record = self.record
        first, self.read_ns = self.read_ns is None, now_ns
        record.response_bytes += len(chunk)
        try:
            if first:
                return self._feed_first(chunk, now_ns)
            return self.meter.feed(chunk)  # type: ignore[union-attr]  # begun by `begin_answer`
        except Exception:  # metering never breaks the relay
            log.exception("%s: a meter failed; the answer goes on, its usage is unknown", self.record.request_id)
            return chunk

    def _feed_first(self, chunk: bytes, now_ns: int) -> bytes:
        if self.record.stream:
            self.record.ttft_ms = (now_ns - self.started_ns) // 1000 / 1000
        assert self.meter is not None  # noqa: S101
        passed, self.meter = self.meter.feed(chunk), chosen(self.meter)
        return passed

    def finish(self) -> bytes:
        """The answer is over, for whatever reason; returns what was held back of it."""
        if self.meter is None:
            return b""
        try:
            return self.meter.finish()
        except Exception:  # metering never breaks the relay
            log.exception("%s: a meter failed at the end of an answer", self.record.request_id)
            return b""

    # ── how it is settled ────────────────────────────────────────────────────────────────────────────────────

    def settle_if_known(self, reading: Reading | None, *, left: bool) -> None:
        """Write the record of an answer that came to its end, unless something still has to be counted: that comes
        after the answer's end.

        `reading`: None where the meter has it. `left`: the client has gone.
        """
        if reading is None:
            assert self.meter is not None  # noqa: S101
            reading = self.meter.reading()
        record = self.record
        answered = record.status is None or record.status < 400
        if answered and self.text is not None:
            silent = self.metering.silent
            unread = reading.input_tokens is None or reading.output_tokens is None
            if unread and lacks(self.flavor.operation, reading):
                silent.add((record.upstream, record.api))
                return
            if silent:
                silent.discard((record.upstream, record.api))
        settled_ns = time.perf_counter_ns()
        self.overhead_ns = (self.overhead_ns or 0) + settled_ns - (self.read_ns or settled_ns)
        self.settle(_OK if answered and not left else outcome_of(record.status, left=left), settled_ns, reading)

    def settle(
        self,
        outcome: Outcome,
        now_ns: int,
        reading: Reading = NOTHING,
        *,
        error_code: str | None = None,
        partial: bool = False,
        counted: Completed | None = None,
    ) -> None:
        """Price the reading and write the `close` line. `counted`: where a figure that nobody reported comes from."""
        if self.closed:
            return
        self.closed = True
        record = self.record
        if reading.failed and outcome is _OK:  # status 200, and then an error in the stream
            outcome, partial = Outcome.UPSTREAM_ERROR, not reading.finished
        spent_us = (now_ns - self.started_ns) // 1000
        record.ended_at = record.started_at + spent_us
        record.duration_ms = spent_us / 1000
        if self.overhead_ns is not None:
            record.overhead_us = self.overhead_ns // 1000
        record.outcome, record.partial, record.error_code = outcome, partial, error_code or record.error_code
        take(record, reading)
        if counted is not None:
            record.input_source, record.output_source = counted.input_source, counted.output_source
            record.tokenizer = counted.tokenizer
        if record.embedding_inputs is None:
            record.embedding_inputs = self.prepared.embedding_inputs
        if record.rerank_documents is None:
            record.rerank_documents = self.prepared.rerank_documents
        record.cost_nusd, record.price_ref = self.metering.prices.cost(record)
        if record.cost_nusd is None:
            record.unpriced_reason = self.metering.prices.why(record)
        if self.held is not None:
            charge(record, self.held)
        if record.cost_nusd == MAX_COST_NUSD:
            record.cost_note = SATURATED
        self.metering.journal.close(self.file, record)


def take(record: Record, reading: Reading) -> None:
    """Write down what an answer used, and what it told of itself."""
    record.response_model = reading.response_model
    record.upstream_request_id = reading.upstream_request_id
    record.service_tier = reading.service_tier
    record.usage = reading.usage
    input_tokens, output_tokens = reading.input_tokens, reading.output_tokens
    if input_tokens is not None:
        record.input_tokens = record.total_tokens = input_tokens
        record.input_source = _REPORTED
    if output_tokens is not None:
        record.output_tokens = output_tokens
        record.output_source = _REPORTED
        record.total_tokens = output_tokens if input_tokens is None else input_tokens + output_tokens
    if not reading.bare:
        _take_details(record, reading)


def _take_details(record: Record, reading: Reading) -> None:
    record.cached_input_tokens = reading.cached_input_tokens
    record.audio_input_tokens = reading.audio_input_tokens
    record.reasoning_output_tokens = reading.reasoning_output_tokens
    record.audio_output_tokens = reading.audio_output_tokens
    record.accepted_prediction_tokens = reading.accepted_prediction_tokens
    record.rejected_prediction_tokens = reading.rejected_prediction_tokens
    if not reading.plain:
        take_rest(record, reading)
