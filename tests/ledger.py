"""Records and batches for tests of what comes after the journal: made-up calls, by hypothesis or by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import msgspec
from hypothesis import strategies as st

from taximeter.core.record import Operation, Outcome, Record, Source
from taximeter.core.totals import FINE
from taximeter.sinks.batch import Batch

US = 1_000_000
T0 = 1_763_800_000 * US
"""2025-11-22T08:26:40Z."""


def call(**changes: Any) -> Record:
    """A priced, reported chat call of workspace acme that ended at T0, with changes."""
    fields: dict[str, Any] = {
        "request_id": "req-1", "started_at": T0 - 250_000, "ended_at": T0, "duration_ms": 250.0, "workspace": "acme",
        "upstream": "openai", "provider": "openai", "api": "chat", "operation": Operation.LLM,
        "request_model": "gpt-4o-mini", "response_model": "gpt-4o-mini", "status": 200, "outcome": Outcome.OK,
        "input_source": Source.REPORTED, "output_source": Source.REPORTED, "input_tokens": 100, "output_tokens": 20,
        "total_tokens": 120, "cost_nusd": 27_000, "price_ref": "test",
        "usage": msgspec.Raw(b'{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120}'),
    }  # fmt: skip
    return Record(**fields | changes)


def random_call(rng: Random, span_us: int = 3 * 86_400 * US) -> Record:
    """Any record a gateway or reprice could write, ended within `span_us` after T0."""
    correction = rng.randrange(10) == 0
    ended_at = T0 + rng.randrange(span_us)
    fields: dict[str, Any] = {
        "kind": "correction" if correction else "usage",
        "request_id": f"req-{rng.randint(1, 30)}",
        "attempt": rng.randint(1, 2),
        "started_at": ended_at - 1_000,
        "ended_at": ended_at,
        "duration_ms": rng.choice([None, rng.randrange(10**7) / 1_000]),
        "workspace": rng.choice(["acme", "beta"]),
        "track": rng.choice([None, "t1", "t2"]),
        "document": rng.choice([None, "d1"]),
        "task": rng.choice([None, "query", "index"]),
        "end_user": rng.choice([None, "ann", "bob"]),
        "key_id": rng.choice([None, "k1"]),
        "upstream": "openai",
        "provider": rng.choice(["openai", "cohere"]),
        "api": "chat",
        "operation": rng.choice([*Operation]),
        "request_model": rng.choice([None, "m1", "m2"]),
        "service_tier": rng.choice([None, "flex"]),
        "outcome": rng.choice([*Outcome]),
        "cost_nusd": rng.choice([None, rng.randint(-(10**6) if correction else 0, 10**6)]),
    }
    if fields["outcome"] not in FINE:
        fields["error_code"] = [None, "upstream_timeout", "budget_reserved"][
            fields["cost_nusd"] % 3 if fields["cost_nusd"] else 0
        ]
    if not correction:
        fields |= {name: rng.choice([None, 0, rng.randrange(5_000)]) for name in _COUNTED}
        fields["seconds"] = rng.choice([None, rng.randrange(10**6) / 1_000])
        fields["input_source"] = rng.choice([*Source])
        fields["output_source"] = rng.choice([*Source])
    return Record(**fields)


def calls(span_us: int = 3 * 86_400 * US) -> st.SearchStrategy[Record]:
    """random_call for hypothesis."""
    return st.builds(random_call, st.randoms(use_true_random=False), st.just(span_us))


_COUNTED = (
    "input_tokens", "cached_input_tokens", "cache_write_input_tokens", "audio_input_tokens", "image_input_tokens",
    "output_tokens", "reasoning_output_tokens", "audio_output_tokens", "accepted_prediction_tokens",
    "rejected_prediction_tokens", "search_units", "rerank_documents", "embedding_inputs",
)  # fmt: skip


def numbered(records: Iterable[Record], journal_id: str = "j1", after: int = 0) -> list[Record]:
    """The records as a journal would have written them: event ids `<journal_id>:<after+1>` and on."""
    return [
        msgspec.structs.replace(record, event_id=f"{journal_id}:{seq}")
        for seq, record in enumerate(records, start=after + 1)
    ]


def batch(records: Sequence[Record], journal_id: str = "j1", after: int = 0, *, ended: bool = False) -> Batch:
    """One batch of these records, numbered."""
    upto = after + len(records)
    return Batch(
        journal_id=journal_id, after=after, upto=upto, records=numbered(records, journal_id, after),
        digest=f"digest-{upto}", ended=ended,
    )  # fmt: skip
