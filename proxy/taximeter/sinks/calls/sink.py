"""The sink named `calls`: one log entry a call, from its record. It keeps nothing and is no source of totals.

A worker writes nothing for it, so a call costs what it costs without. No body, header or credential is in a record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from taximeter.core.record import Record
from taximeter.core.times import shown
from taximeter.core.views import usd
from taximeter.node.logs import FIELDS
from taximeter.sinks.batch import Batch
from taximeter.sinks.passing import Passing, Start

log = logging.getLogger("taximeter.calls")


NAMES = (
    "request_id",
    "attempt",
    "workspace",
    "key_id",
    "track",
    "document",
    "task",
    "end_user",
    "upstream",
    "provider",
    "api",
    "operation",
    "stream",
    "request_model",
    "response_model",
    "status",
    "outcome",
    "error_code",
    "partial",
    "duration_ms",
    "ttft_ms",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "total_tokens",
    "request_bytes",
    "response_bytes",
)
"""Members of `call`, beside `started_at`, `ended_at` and `cost_usd`: a record's (DESIGN §3). Null is not known."""


class Calls:
    """Implements sinks.sink.Sink. Like Prometheus it begins, in each journal, where history was at its start."""

    name = "calls"
    durable = False

    def __init__(self, start: Start) -> None:
        """`start`: history's `cursors`."""
        self._passing = Passing(start)

    async def cursors(self, journal_ids: Iterable[str]) -> dict[str, int]:
        return await self._passing.cursors(journal_ids)

    async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        journals = [batch.journal_id for batch in batches]
        await self.cursors(journals)
        for batch in self._passing.fresh(batches):
            await asyncio.to_thread(_write, batch.records)  # a reader of the log that is slow holds up this sink alone
        return await self.cursors(journals)

    async def close(self) -> None:
        """Nothing is held."""


def _write(records: Sequence[Record]) -> None:
    for record in records:
        if record.kind == "usage":  # a correction is no call
            log.info("%s", words(record), extra={FIELDS: {"call": fields(record)}})


def fields(record: Record) -> dict[str, Any]:
    """What an entry in JSON says of a call."""
    named = {name: getattr(record, name) for name in NAMES}
    times = {"started_at": shown(record.started_at), "ended_at": shown(record.ended_at)}
    return times | named | {"cost_usd": _cost(record)}


def words(record: Record) -> str:
    """What an entry in text says of a call: `name=value`, what is not known left out."""
    shorter = {
        "workspace": record.workspace,
        "key": record.key_id,
        "track": record.track,
        "task": record.task,
        "upstream": record.upstream,
        "model": record.model,
        "api": record.api,
        "status": record.status,
        "error": record.error_code,
        "ms": record.duration_ms,
        "input": record.input_tokens,
        "output": record.output_tokens,
        "usd": _cost(record),
    }
    told = " ".join(f"{name}={value}" for name, value in shorter.items() if value is not None)
    return f"call {record.request_id} {record.outcome.value} {told}"


def _cost(record: Record) -> str | None:
    return None if record.cost_nusd is None else f"{usd(record.cost_nusd):f}"
