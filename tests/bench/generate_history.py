"""Fill a history database with made-up calls, through the sink's own writer, so that roll-ups are what they would be.

    python tests/bench/generate_history.py sqlite:////tmp/bench/history.db --records 10_000_000

A RAG house: workspaces of very different size, each with its own documents (150 calls each, in tracks of 1,500) and end
users (500 in all), two chat models, embeddings and rerank. Then `ask_history.py` measures questions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

import msgspec

from taximeter.core.record import Operation, Outcome, Record, Source
from taximeter.sinks.batch import Batch
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.write.tag_rollups import TagRoller
from taximeter.sinks.history.write.writer import Writer

US = 1_000_000
DAY_US = 86_400 * US
END_US = 1_795_305_600 * US
"""2026-11-22T00:00:00Z: the moment after the last call."""

BATCH = 5_000
USAGE = (
    b'{"prompt_tokens":1200,"completion_tokens":220,"total_tokens":1420,'
    b'"prompt_tokens_details":{"cached_tokens":64,"audio_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}}'
)
KINDS = (
    ("gpt-4o-mini", "openai", Operation.LLM, "chat", "query", 30),
    ("gpt-4o-mini", "openai", Operation.LLM, "chat", "index", 35),
    ("gpt-4o", "openai", Operation.LLM, "chat", "query", 5),
    ("text-embedding-3-small", "openai", Operation.EMBEDDING, "embeddings", "index", 15),
    ("text-embedding-3-small", "openai", Operation.EMBEDDING, "embeddings", "query", 10),
    ("rerank-v3.5", "cohere", Operation.RERANK, "rerank", "query", 5),
)
"""model, provider, operation, api, task, share in per cent"""


USERS, DOCUMENT_CALLS, TRACK_CALLS = 500, 150, 1_500


@dataclass
class House:
    """One workspace's own."""

    workspace: str
    users: int
    indexed: int = 0
    """Calls of ingestion so far."""


def records(count: int, days: int, workspaces: int, rng: Random) -> Iterator[Record]:
    """`count` calls, evenly over the days, in order of time."""
    names = [f"workspace-{number:03}" for number in range(workspaces)]
    weights = [1 / (1 + number) for number in range(workspaces)]
    houses = {
        name: House(name, max(1, round(USERS * weight / sum(weights))))
        for name, weight in zip(names, weights, strict=True)
    }
    shares = [kind[-1] for kind in KINDS]
    step_us = days * DAY_US / count
    start_us = END_US - days * DAY_US
    drawn = 0
    for at in range(count):
        if drawn == 0:
            drawn = 10_000
            chosen = rng.choices(names, weights, k=drawn)
            kinds = rng.choices(KINDS, shares, k=drawn)
        drawn -= 1
        yield _record(rng, int(start_us + at * step_us), at, houses[chosen[drawn]], kinds[drawn])


def _record(
    rng: Random, ended_at: int, at: int, house: House, kind: tuple[str, str, Operation, str, str, int]
) -> Record:
    model, provider, operation, api, task, _ = kind
    workspace = house.workspace
    tokens_in = rng.randrange(20, 4_000)
    tokens_out = rng.randrange(500) if operation is Operation.LLM else None
    indexing = task == "index"
    house.indexed += indexing
    duration_ms = rng.randrange(50_000, 5_000_000) / 1_000
    return Record(
        request_id=f"{ended_at:016x}{at:08x}",
        started_at=ended_at - int(duration_ms * 1_000),
        ended_at=ended_at,
        duration_ms=duration_ms,
        ttft_ms=duration_ms / 4,
        overhead_us=90,
        workspace=workspace,
        track=f"upload-{house.indexed // TRACK_CALLS}" if indexing else None,
        document=f"{workspace}/document-{house.indexed // DOCUMENT_CALLS}" if indexing else None,
        task=task,
        end_user=None if indexing else f"{workspace}/user-{rng.randrange(house.users)}",
        key_id=f"key-{workspace}",
        upstream=provider,
        provider=provider,
        api=api,
        operation=operation,
        stream=operation is Operation.LLM,
        request_model=model,
        response_model=model,
        upstream_request_id=f"chatcmpl-{at:024x}",
        service_tier="default" if operation is Operation.LLM else None,
        status=200,
        outcome=Outcome.OK if at % 200 else Outcome.CLIENT_LEFT,
        input_source=Source.REPORTED,
        output_source=Source.REPORTED if tokens_out is not None else Source.NONE,
        input_tokens=tokens_in,
        cached_input_tokens=64 if operation is Operation.LLM else None,
        output_tokens=tokens_out,
        total_tokens=tokens_in + (tokens_out or 0),
        search_units=1 if operation is Operation.RERANK else None,
        cost_nusd=150 * tokens_in + 600 * (tokens_out or 0),
        price_ref="bench",
        request_bytes=4 * tokens_in,
        response_bytes=5_000,
        usage=msgspec.Raw(USAGE),
    )


def generate(url: str, count: int, days: int, workspaces: int) -> float:
    """Fill the database; answer the seconds the writer itself took."""
    rng = Random(1)
    source = records(count, days, workspaces, rng)
    writing_s = 0.0
    with Database(url) as database:
        writer = Writer(database)
        for after in range(0, count, BATCH):
            some = list(islice(source, BATCH))
            for seq, record in enumerate(some, start=after + 1):
                record.event_id = f"bench:{seq}"
            batch = Batch(journal_id="bench", after=after, upto=after + len(some), records=some)
            started = time.perf_counter()
            writer.apply([batch])
            writing_s += time.perf_counter() - started
            if after % 500_000 == 0:
                print(f"{after + len(some):>12,} records", flush=True)
        started = time.perf_counter()
        roller = TagRoller(database)
        while roller.roll_up():
            pass
        print(f"{(time.perf_counter() - started) / count * 1e6:.1f} µs a record in the roll-ups by tag")
    return writing_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--records", type=lambda text: int(text.replace("_", "")), default=1_000_000)
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--workspaces", type=int, default=50)
    asked = parser.parse_args()
    writing_s = generate(asked.url, asked.records, asked.days, asked.workspaces)
    print(f"{asked.records:,} records, {writing_s / asked.records * 1e6:.1f} µs a record in the writer")


if __name__ == "__main__":
    main()
