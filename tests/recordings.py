"""The recorded exchanges of other projects, and what each of them used: an oracle that shares no code with the flavors.

`expected` computes the final count from a record's `reported_usage` (a plain walk over the JSON, made elsewhere) by
the rules of the survey; it never looks at the response body.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).parent.parent


class Expected(NamedTuple):
    """What an exchange used, in our convention; None where the provider did not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    search_units: int | None = None
    seconds: float | None = None
    upstream_cost_nusd: int | None = None


@cache
def corpus() -> list[dict[str, Any]]:
    """All records; empty where the corpus is not there."""
    directory = os.environ.get("TAXIMETER_CORPUS")
    place = Path(directory) if directory else REPOSITORY.parent / "shared" / "corpus"
    file = place / "exchanges.jsonl.gz" if place.is_dir() else place
    if not file.exists():
        return []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def body(record: dict[str, Any]) -> bytes:
    """The response's bytes."""
    text = record["response_body"]
    return base64.b64decode(text) if record["response_encoding"] == "base64" else text.encode()


def headers(record: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """The recorded headers that carry counts, as an answer has them."""
    return [(name.lower().encode(), str(value).encode()) for name, value in _usage_headers(record).items()]


def expected(record: dict[str, Any]) -> Expected:
    """The final count of a record; all None where nothing was used or nothing is known."""
    mains = [entry["usage"] for entry in record["reported_usage"] if entry["role"] == "main"]
    flavour = record["flavour"]
    if flavour == "bedrock.invoke_stream":
        metrics = [one for one in mains if "inputTokenCount" in one or "outputTokenCount" in one]
        native = _bedrock_native(_merged([one for one in mains if one not in metrics]))
        if not metrics:
            return native
        parts = {"cacheReadInputTokens": native[2], "cacheWriteInputTokens": native[3]}
        return _exclusive({**parts, **metrics[-1]})  # what is billed; only the native objects may tell the parts
    if flavour == "bedrock.invoke":
        found = _bedrock_native(_merged(mains))
        return found if any(value is not None for value in found) else _bedrock_headers(record)
    if flavour == "bedrock.agent":
        return Expected(_sum(mains, "inputTokens"), _sum(mains, "outputTokens"))
    if flavour.startswith("bedrock."):
        return _exclusive(_merged(mains))
    if flavour.startswith("google."):
        return _google(flavour, mains)
    if flavour.startswith("anthropic."):
        return _anthropic(_merged(mains))
    if flavour.startswith("cohere."):
        return _cohere(_merged(mains))
    if flavour.startswith("ollama."):
        usage = _merged(mains)
        return Expected(usage.get("prompt_eval_count"), usage.get("eval_count"))
    if flavour == "watsonx.generation":
        return Expected(_max(mains, "input_token_count"), _max(mains, "generated_token_count"))
    if flavour == "tgi.generate":
        prompt = _usage_headers(record).get("x-prompt-tokens")
        return Expected(int(prompt) if prompt else None, _sum(mains, "generated_tokens"))
    return _openai(record, _merged(mains))


def _merged(mains: list[dict[str, Any]]) -> dict[str, Any]:
    """The last non-null of each member: reports are cumulative and replace, they are never added."""
    merged: dict[str, Any] = {}
    for usage in mains:
        merged |= {key: value for key, value in usage.items() if value is not None}
    return merged


def _openai(record: dict[str, Any], usage: dict[str, Any]) -> Expected:
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    completion = usage.get("completion_tokens", usage.get("output_tokens"))
    total = usage.get("total_tokens")
    inside = _details(
        usage, "prompt_tokens_details", "input_tokens_details", "prompt_token_details", "input_token_details"
    )
    outside = _details(usage, "completion_tokens_details", "output_tokens_details")
    reasoning = _pick(outside.get("reasoning_tokens"), usage.get("reasoning_tokens"))
    if total is not None and prompt is None and completion is None:
        prompt = total
    elif total is not None and completion is None and record["flavour"] == "openai.completions":
        completion = total - prompt
    elif reasoning and record["provider"] == "vercel-gateway" and _asked_model(record).startswith("google/"):
        completion += reasoning
    elif total is not None and prompt is not None and completion is not None:
        rest = total - prompt - completion
        if rest and rest == reasoning:
            completion += rest
        elif rest and rest == inside.get("audio_tokens"):
            prompt += rest
        elif rest > 0 and not reasoning and record["provider"] in ("google", "vertex"):
            completion += rest
            reasoning = rest
    cached = [inside.get("cached_tokens")]
    cached += [usage.get(name) for name in ("cached_tokens", "num_cached_tokens", "prompt_cache_hit_tokens")]
    writes = inside.get("cache_write_tokens")
    return Expected(
        prompt,
        completion,
        _pick(*cached, usage.get("cache_read_input_tokens")),
        _pick(writes, usage.get("cache_creation_input_tokens")),
        reasoning,
        None,
        _pick(usage.get("seconds"), usage.get("prompt_audio_seconds")),
        _cost(record, usage),
    )


def _anthropic(usage: dict[str, Any]) -> Expected:
    """Input excludes cache reads and writes; a compaction pass is billed and stands in `iterations` alone."""
    passes = [usage, *(one for one in usage.get("iterations", []) if one["type"] == "compaction")]
    reads, writes = _sum(passes, "cache_read_input_tokens"), _sum(passes, "cache_creation_input_tokens")
    fresh = _sum(passes, "input_tokens")
    whole = None if fresh is None else fresh + (reads or 0) + (writes or 0)
    thinking = (usage.get("output_tokens_details") or {}).get("thinking_tokens")
    return Expected(whole, _sum(passes, "output_tokens"), reads, writes, thinking)


def _google(flavour: str, mains: list[dict[str, Any]]) -> Expected:
    if flavour == "google.predict":
        return Expected(_sum(mains, "token_count"))
    if flavour == "google.interactions":
        last = mains[-1] if mains else {}
        return Expected(
            _add(last.get("total_input_tokens"), last.get("total_tool_use_tokens")),
            _add(last.get("total_output_tokens"), last.get("total_thought_tokens")),
            last.get("total_cached_tokens"),
            None,
            last.get("total_thought_tokens"),
        )
    counting = [one for one in mains if any(k.endswith("TokenCount") and isinstance(v, int) for k, v in one.items())]
    last = counting[-1] if counting else {}
    prompt, written, thoughts = (last.get(f"{name}TokenCount") for name in ("prompt", "candidates", "thoughts"))
    tool, total = last.get("toolUsePromptTokenCount"), last.get("totalTokenCount")
    if written is None and total is not None:
        written = total - (prompt or 0) - (tool or 0) - (thoughts or 0)
    estimate = (last.get("pydantic_ai_gateway") or {}).get("cost_estimate")
    return Expected(
        _add(prompt, tool),
        _add(written, thoughts),
        last.get("cachedContentTokenCount"),
        None,
        thoughts,
        upstream_cost_nusd=_nano(estimate),
    )


def _cohere(usage: dict[str, Any]) -> Expected:
    billed, seen = usage.get("billed_units") or {}, usage.get("tokens") or {}
    into, cached = billed.get("input_tokens"), usage.get("cached_tokens")
    if cached and seen.get("input_tokens", 0) > into:
        cached = None  # a part of the tokens seen, not of those billed
    return Expected(
        into, billed.get("output_tokens"), cached, None, seen.get("reasoning_tokens"), billed.get("search_units")
    )


def _bedrock_native(usage: dict[str, Any]) -> Expected:
    if "inputTokens" in usage:
        return _exclusive(usage)
    if "prompt_tokens" in usage:
        return Expected(usage["prompt_tokens"], usage.get("completion_tokens"))
    if "input_tokens" in usage:
        return _anthropic(usage)
    into = _pick(usage.get("inputTextTokenCount"), usage.get("prompt_token_count"))
    out = _pick(usage.get("totalOutputTextTokenCount"), usage.get("tokenCount"), usage.get("generation_token_count"))
    return Expected(into, out)


def _bedrock_headers(record: dict[str, Any]) -> Expected:
    found = {name: int(value) for name, value in _usage_headers(record).items() if name.startswith("x-amzn-bedrock-")}
    reads = found.get("x-amzn-bedrock-cache-read-input-token-count")
    writes = found.get("x-amzn-bedrock-cache-write-input-token-count")
    fresh, out = (found.get(f"x-amzn-bedrock-{name}-token-count") for name in ("input", "output"))
    return Expected(_add(fresh, reads, writes), out, reads, writes)


def _exclusive(usage: dict[str, Any]) -> Expected:
    """Converse, invocation metrics: cache counts stand beside the input; two spellings of the same figure."""
    reads = _pick(usage.get("cacheReadInputTokens"), usage.get("cacheReadInputTokenCount"))
    writes = _pick(usage.get("cacheWriteInputTokens"), usage.get("cacheWriteInputTokenCount"))
    fresh = _pick(usage.get("inputTokens"), usage.get("inputTokenCount"))
    return Expected(
        _add(fresh, reads, writes), _pick(usage.get("outputTokens"), usage.get("outputTokenCount")), reads, writes
    )


def _cost(record: dict[str, Any], usage: dict[str, Any]) -> int | None:
    cost = usage.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    if cost is None and "cost_in_usd_ticks" in usage:
        return round(Decimal(usage["cost_in_usd_ticks"]) / 10)
    if cost is None:
        cost = (usage.get("pydantic_ai_gateway") or {}).get("cost_estimate")
    if cost is None:
        cost = _usage_headers(record).get("x-litellm-response-cost")
    return _nano(cost)


def _nano(usd: float | str | None) -> int | None:
    return None if usd is None else round(Decimal(str(usd)) * 10**9)


def _usage_headers(record: dict[str, Any]) -> dict[str, str]:
    return record.get("response_usage_headers") or {}


def _asked_model(record: dict[str, Any]) -> str:
    try:
        return json.loads(record["request_body"])["model"]
    except (ValueError, KeyError):
        return ""


def _details(usage: dict[str, Any], *names: str) -> dict[str, Any]:
    return next((usage[name] for name in names if isinstance(usage.get(name), dict)), {})


def _pick(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _add(*values: int | None) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _sum(usages: list[dict[str, Any]], name: str) -> int | None:
    return _add(*(usage.get(name) for usage in usages))


def _max(usages: list[dict[str, Any]], name: str) -> int | None:
    return max((usage[name] for usage in usages if usage.get(name) is not None), default=None)
