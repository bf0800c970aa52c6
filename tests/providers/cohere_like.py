"""What Cohere answers (docs.cohere.com: Chat v1 and v2, streaming, Embed, Rerank, Errors)."""

from __future__ import annotations

import json

from providers.scripts import JSON, compact, named, ndjson, streamed, whole
from upstream import Request, Script

USAGE: JSON = {
    "billed_units": {"input_tokens": 24, "output_tokens": 63},
    "tokens": {"input_tokens": 553, "output_tokens": 64},
    "cached_tokens": 480,
}
"""What a chat uses; `tokens` counts Cohere's own preamble, which is not billed."""

META: JSON = {"api_version": {"version": "1"}, "billed_units": USAGE["billed_units"], "tokens": USAGE["tokens"]}
ID = "41153506-a666-437a-9869-5f771b08722c"
PARTS = ("A call costs ", "what it uses — ", "不多不少.")
EMBED_TOKENS = 9
SEARCH_UNITS = 2


def answer(request: Request) -> Script:
    """The script for one request."""
    asked = json.loads(request.body or b"{}")
    path = request.target.partition("?")[0]
    if asked.get("model") == "no-such-model":
        return whole({"id": ID, "message": "model 'no-such-model' not found"}, 404)
    if path.endswith("/v2/chat"):
        return _chat_v2(asked)
    if path.endswith("/v1/chat"):
        return _chat_v1(asked)
    if path.endswith("/embed"):
        return whole(_embed(asked))
    if path.endswith("/rerank"):
        meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": SEARCH_UNITS}}
        results = [{"index": 1, "relevance_score": 0.71}, {"index": 0, "relevance_score": 0.52}]
        return whole({"id": ID, "results": results, "meta": meta})
    return whole({"message": f"no such path: {path}"}, 404)


def _chat_v2(asked: JSON) -> Script:
    if not asked.get("stream"):
        message = {"role": "assistant", "content": [{"type": "text", "text": "".join(PARTS)}]}
        return whole({"id": ID, "message": message, "finish_reason": "COMPLETE", "usage": USAGE})
    begin = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    events = named(
        {"type": "message-start", "id": ID, "delta": {"message": begin}},
        {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
        *({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": part}}}} for part in PARTS),
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}},
    )
    return streamed(events + b"data: [DONE]\n\n")


def _chat_v1(asked: JSON) -> Script:
    whole_answer = {
        "response_id": ID,
        "text": "".join(PARTS),
        "generation_id": ID,
        "chat_history": [{"role": "USER", "message": asked["message"]}],
        "finish_reason": "COMPLETE",
        "meta": META,
    }
    if not asked.get("stream"):
        return whole(whole_answer)
    events = (
        {"is_finished": False, "event_type": "stream-start", "generation_id": ID},
        *({"is_finished": False, "event_type": "text-generation", "text": part} for part in PARTS),
        {"is_finished": True, "event_type": "stream-end", "response": whole_answer, "finish_reason": "COMPLETE"},
    )
    return streamed(ndjson(*events), "application/stream+json")


def _embed(asked: JSON) -> bytes:
    texts = asked.get("texts") or []
    meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": EMBED_TOKENS}}
    floats = [[0.5, -0.25, 0.125]] * len(texts)
    return compact(
        {"id": ID, "texts": texts, "embeddings": {"float": floats}, "meta": meta, "response_type": "embeddings_by_type"}
    )
