"""Some weeks of a RAG house's calls, made up but shaped like real ones: busy days, quiet nights, uploads in bursts.

Deterministic: the same seed and end give the same records.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from control_plane import record
from taximeter.core.record import Operation, Outcome, Record, Source

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US

WORKSPACES = (("acme", 9), ("globex", 5), ("initech", 3), ("umbrella", 2), ("hooli", 1))
MODELS = {
    ("openai", "gpt-4o-mini"): (150, 600),
    ("openai", "gpt-4o"): (2_500, 10_000),
    ("anthropic", "claude-sonnet-4-5"): (3_000, 15_000),
    ("mistral", "mistral-large-latest"): (2_000, 6_000),
}
"""(provider, model) -> nano-USD a token in and out."""
RHYTHM = (1, 1, 1, 1, 1, 2, 3, 6, 12, 16, 18, 17, 14, 17, 19, 18, 15, 11, 7, 5, 4, 3, 2, 1)
"""Queries an hour, relatively."""


def calls(end_us: int, days: int = 40, per_day: int = 60, seed: int = 1) -> list[Record]:
    """Calls of the days before `end_us`, in order of time; queries all day, an upload now and then."""
    dice = Random(seed)
    made: list[Record] = []
    for day in range(days):
        start_us = (end_us // DAY_US - days + 1 + day) * DAY_US
        weekend = (start_us // DAY_US + 4) % 7 >= 5
        for _ in range(int(per_day * (0.3 if weekend else 1) * dice.uniform(0.8, 1.2) * (0.6 + 0.4 * day / days))):
            hour = dice.choices(range(24), RHYTHM)[0]
            made.append(_query(dice, start_us + hour * HOUR_US + dice.randrange(HOUR_US)))
        if dice.random() < (0.2 if weekend else 0.7):
            made += _upload(dice, start_us + dice.randrange(8, 18) * HOUR_US, f"upload-{day:02}")
    made = sorted((each for each in made if each.ended_at < end_us), key=lambda each: each.ended_at)
    for number, each in enumerate(made):
        each.request_id = f"req-{number:06}"
    return made


def _query(dice: Random, at_us: int) -> Record:
    workspace = dice.choices([name for name, _ in WORKSPACES], [weight for _, weight in WORKSPACES])[0]
    chance = dice.random()
    common: dict[str, object] = {
        "workspace": workspace,
        "task": "query",
        "end_user": f"user-{dice.randrange(40)}",
        "ended_at": at_us,
    }
    if chance < 0.03:
        return _call(dice, at_us, 30_000, "openai", "gpt-4o-mini", common, None, None, Outcome.TIMEOUT)
    if chance < 0.05:
        return _call(dice, at_us, 900, "local", "llama-3.1-8b", common, dice.randrange(200, 3_000), 200, Outcome.OK)
    if chance < 0.2:
        return _rerank(dice, at_us, common)
    if chance < 0.35:
        return _embedding(dice, at_us, common, dice.randrange(8, 60))
    provider, model = dice.choices(list(MODELS), (10, 3, 3, 1))[0]
    outcome = Outcome.CLIENT_LEFT if dice.random() < 0.03 else Outcome.OK
    return _call(dice, at_us, dice.randrange(700, 9_000), provider, model, common,
                 dice.randrange(800, 9_000), dice.randrange(40, 900), outcome)  # fmt: skip


def _upload(dice: Random, at_us: int, track: str) -> Iterator[Record]:
    """Documents one after another: their chunks embedded, entities extracted a few at a time."""
    workspace = dice.choice(("acme", "globex"))
    for document in range(dice.randrange(2, 5)):
        common: dict[str, object] = {
            "workspace": workspace,
            "track": track,
            "document": f"doc-{document + 1}",
            "task": "extract",
        }
        yield _embedding(dice, at_us + 400_000, common, dice.randrange(2_000, 8_000))
        for chunk in range(dice.randrange(3, 8)):
            took_ms = dice.randrange(1_500, 6_000)
            ends_us = at_us + (chunk // 3) * 4_000_000 + took_ms * 1_000
            yield _call(dice, ends_us, took_ms, "openai", "gpt-4o-mini", common,
                        dice.randrange(2_500, 5_000), dice.randrange(300, 1_200), Outcome.OK)  # fmt: skip
        at_us += 14_000_000


def _call(
    dice: Random, ended_at: int, took_ms: int, provider: str, model: str, common: dict[str, object],
    tokens_in: int | None, tokens_out: int | None, outcome: Outcome,
) -> Record:  # fmt: skip
    rate_in, rate_out = MODELS.get((provider, model), (0, 0))
    used = None if tokens_in is None or tokens_out is None else (tokens_in, tokens_out)
    known = used is not None
    source = Source.NONE if not known else Source.COUNTED if provider == "local" else Source.REPORTED
    return record(0, **{
        **common, "ended_at": ended_at, "started_at": ended_at - took_ms * 1_000, "duration_ms": float(took_ms),
        "ttft_ms": took_ms / 5, "overhead_us": 90, "provider": provider, "upstream": provider, "request_model": model,
        "response_model": model, "stream": True, "outcome": outcome, "status": 200 if known else None,
        "input_tokens": tokens_in, "output_tokens": tokens_out, "input_source": source, "output_source": source,
        "cached_input_tokens": tokens_in // 5 if tokens_in and dice.random() < 0.4 else (0 if known else None),
        "reasoning_output_tokens": 0 if known else None,
        "total_tokens": sum(used) if used else None,
        "cost_nusd": rate_in * used[0] + rate_out * used[1] if used and rate_in else None,
        "price_ref": "genai-prices" if rate_in and known else None,
    })  # fmt: skip


def _embedding(dice: Random, ended_at: int, common: dict[str, object], tokens: int) -> Record:
    return record(0, **{
        **common, "ended_at": ended_at, "started_at": ended_at - 300_000, "duration_ms": 300.0, "api": "embeddings",
        "operation": Operation.EMBEDDING, "request_model": "text-embedding-3-small", "input_tokens": tokens,
        "cached_input_tokens": None, "output_tokens": None, "reasoning_output_tokens": None,
        "output_source": Source.NONE, "total_tokens": tokens, "cost_nusd": 20 * tokens,
        "embedding_inputs": max(1, tokens // 500),
    })  # fmt: skip


def _rerank(dice: Random, ended_at: int, common: dict[str, object]) -> Record:
    return record(0, **{
        **common, "ended_at": ended_at, "started_at": ended_at - 180_000, "duration_ms": 180.0, "api": "rerank",
        "operation": Operation.RERANK, "provider": "cohere", "upstream": "cohere", "request_model": "rerank-v3.5",
        "input_tokens": None, "cached_input_tokens": None, "output_tokens": None, "reasoning_output_tokens": None,
        "input_source": Source.REPORTED, "output_source": Source.NONE, "total_tokens": None, "search_units": 1,
        "rerank_documents": dice.randrange(5, 40), "cost_nusd": 2_000_000,
    })  # fmt: skip
