"""One upstream attempt from its `open` line to its `close` line: what is known of it, and how it is settled.

Knows the journal and prices; nothing of sockets.
"""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, Protocol

from taximeter.budgets.charges import Held, charge
from taximeter.core.record import IMPOSSIBLE, MAX_COST_NUSD, SATURATED, Open, Outcome, Record, Source, Tick
from taximeter.core.usage import NOTHING, Reading

if TYPE_CHECKING:
    from taximeter.flavors.meter import Prepared
    from taximeter.journal import Journal, JournalFile

TICK_EVERY_NS = 1_000_000_000

_worker_bits = os.urandom(4).hex()
_numbers = count()


def new_request_id(now_us: int) -> str:
    """`req_` and 25 hex digits: time first, so ids sort by time and an index on them grows at its end."""
    return f"req_{now_us:013x}{_worker_bits}{next(_numbers) & 0xFFFF:04x}"


class Prices(Protocol):
    """What a call costs (see `taximeter.pricebook`)."""

    def cost(self, record: Record) -> tuple[int | None, str | None]:
        """(cost in nano-USD, price_ref), or (None, None) where there is no price."""


class Call:
    """An attempt in progress. `settle` writes its record, exactly once, whatever happens."""

    __slots__ = (
        "_file",
        "_journal",
        "closed",
        "held",
        "opening",
        "overhead_ns",
        "prices",
        "read_ns",
        "record",
        "request_bytes",
        "response_bytes",
        "started_ns",
        "status",
        "tick_at_ns",
        "ttft_ns",
    )

    def __init__(self, journal: Journal, prices: Prices, opening: Open, started_ns: int) -> None:
        """Writes the `open` line. Raises JournalError where the journal must not be outrun and cannot be written."""
        self._journal = journal
        self.prices = prices
        self.opening = opening
        self.started_ns = started_ns
        self.request_bytes = opening.request_bytes
        self.response_bytes = 0
        self.status: int | None = None
        self.read_ns: int | None = None
        """When the last of the answer was read."""
        self.ttft_ns: int | None = None
        self.overhead_ns: int | None = None
        self.tick_at_ns = started_ns + TICK_EVERY_NS
        """From when on a long stream's progress is to be written down again."""
        self.closed = False
        """Its record is written."""
        self.held: Held | None = None
        """What is held of its hard budgets, where it has any."""
        self.record: Record | None = None
        """What was written at the close."""
        self._file: JournalFile = journal.open(opening)

    def read(self, size_bytes: int, now_ns: int) -> None:
        """A part of the answer has come."""
        if self.ttft_ns is None:
            self.ttft_ns = now_ns - self.started_ns
        self.read_ns = now_ns
        self.response_bytes += size_bytes

    def tick(self, now_ns: int, output_tokens: int | None) -> None:
        """Write down a long stream's progress, at most once a second."""
        self.tick_at_ns = now_ns + TICK_EVERY_NS
        self._tick(now_ns, output_tokens)

    def hold(self, held: Held, now_ns: int) -> bool:
        """Write down, before it is sent, the most it may use: should nobody learn what it did use, that is charged.

        False: the journal cannot be written now.
        """
        self.held = held
        return self._tick(now_ns, None)

    def _tick(self, now_ns: int, output_tokens: int | None) -> bool:
        opening, held = self.opening, self.held
        return self._journal.tick(
            self._file,
            Tick(
                request_id=opening.request_id,
                attempt=opening.attempt,
                at=opening.started_at + (now_ns - self.started_ns) // 1000,
                response_bytes=self.response_bytes,
                output_tokens=output_tokens,
                bound_tokens=None if held is None else held.tokens,
                bound_cost_nusd=None if held is None else held.cost_nusd,
            ),
        )

    def settle(
        self,
        outcome: Outcome,
        now_ns: int,
        reading: Reading = NOTHING,
        *,
        prepared: Prepared | None = None,
        error_code: str | None = None,
        partial: bool = False,
        input_source: Source | None = None,
        output_source: Source | None = None,
        tokenizer: str | None = None,
    ) -> Record | None:
        """Price the reading and write the `close` line. A second call does nothing and answers None."""
        if self.closed:
            return None
        self.closed = True
        opening = self.opening
        if reading.failed and outcome is Outcome.OK:  # status 200, and then an error in the stream
            outcome, partial = Outcome.UPSTREAM_ERROR, not reading.finished
        if input_source is None:
            input_source = Source.NONE if reading.input_tokens is None else Source.REPORTED
        if output_source is None:
            output_source = Source.NONE if reading.output_tokens is None else Source.REPORTED
        spent_ns = now_ns - self.started_ns
        record = Record(
            request_id=opening.request_id,
            attempt=opening.attempt,
            started_at=opening.started_at,
            ended_at=opening.started_at + spent_ns // 1000,
            duration_ms=spent_ns // 1000 / 1000,
            ttft_ms=None if self.ttft_ns is None else self.ttft_ns // 1000 / 1000,
            overhead_us=None if self.overhead_ns is None else self.overhead_ns // 1000,
            workspace=opening.workspace,
            track=opening.track,
            document=opening.document,
            task=opening.task,
            end_user=opening.end_user,
            key_id=opening.key_id,
            tags=opening.tags,
            upstream=opening.upstream,
            provider=opening.provider,
            api=opening.api,
            operation=opening.operation,
            stream=opening.stream,
            request_model=opening.request_model,
            response_model=reading.response_model,
            upstream_request_id=reading.upstream_request_id,
            service_tier=reading.service_tier,
            status=self.status,
            outcome=outcome,
            partial=partial,
            input_source=input_source,
            output_source=output_source,
            tokenizer=tokenizer,
            input_tokens=reading.input_tokens,
            output_tokens=reading.output_tokens,
            total_tokens=_total(reading),
            request_bytes=self.request_bytes,
            response_bytes=self.response_bytes,
            error_code=error_code,
            usage=reading.usage,
        )
        if not reading.bare:
            _take_details(record, reading)
        if prepared is not None:
            if record.embedding_inputs is None:
                record.embedding_inputs = prepared.embedding_inputs
            if record.rerank_documents is None:
                record.rerank_documents = prepared.rerank_documents
        record.cost_nusd, record.price_ref = self.prices.cost(record)
        if self.held is not None:
            charge(record, self.held)
        if record.cost_nusd == MAX_COST_NUSD:
            record.cost_note = SATURATED
        self.record = record
        self._journal.close(self._file, record)
        return record

    def usage_headers(self) -> list[tuple[bytes, bytes]]:
        """`x-taximeter-…` headers of a settled call; what is not known is left out."""
        record = self.record
        if record is None:
            return []
        found = []
        if record.input_tokens is not None:
            found.append((b"x-taximeter-input-tokens", str(record.input_tokens).encode()))
        if record.output_tokens is not None:
            found.append((b"x-taximeter-output-tokens", str(record.output_tokens).encode()))
        if record.cost_nusd is not None:
            cost_usd = f"{record.cost_nusd // 10**9}.{record.cost_nusd % 10**9:09d}"
            found.append((b"x-taximeter-cost-usd", cost_usd.encode()))
        return found


def _take_details(record: Record, reading: Reading) -> None:
    record.cached_input_tokens = reading.cached_input_tokens
    record.cache_write_input_tokens = reading.cache_write_input_tokens
    record.cache_write_input_tokens_5m = reading.cache_write_input_tokens_5m
    record.cache_write_input_tokens_1h = reading.cache_write_input_tokens_1h
    record.audio_input_tokens = reading.audio_input_tokens
    record.image_input_tokens = reading.image_input_tokens
    record.reasoning_output_tokens = reading.reasoning_output_tokens
    record.audio_output_tokens = reading.audio_output_tokens
    record.accepted_prediction_tokens = reading.accepted_prediction_tokens
    record.rejected_prediction_tokens = reading.rejected_prediction_tokens
    record.search_units = reading.search_units
    record.rerank_documents = reading.rerank_documents
    record.embedding_inputs = reading.embedding_inputs
    record.web_search_requests = reading.web_search_requests
    record.seconds = reading.seconds
    record.inconsistent = reading.inconsistent
    record.upstream_cost_nusd = reading.upstream_cost_nusd
    if reading.impossible:
        record.cost_note = IMPOSSIBLE


def _total(reading: Reading) -> int | None:
    if reading.input_tokens is None:
        return reading.output_tokens
    if reading.output_tokens is None:
        return reading.input_tokens
    return reading.input_tokens + reading.output_tokens
