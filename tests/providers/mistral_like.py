"""What Mistral answers (docs.mistral.ai, API reference): chat, agents, FIM, embeddings, conversations, OCR."""

from __future__ import annotations

import json
from typing import Any

from providers.scripts import JSON, data, streamed, whole
from upstream import Request, Script

USAGE: JSON = {"prompt_tokens": 25, "total_tokens": 56, "completion_tokens": 31, "num_cached_tokens": 16}
"""What a chat uses."""

OCR_USAGE: JSON = {"pages_processed": 3, "doc_size_bytes": 3002783}
ID = "4dd1864028c747ccb7742dcb41dc9559"
CREATED = 1_790_000_000
PARTS = ("A call costs ", "what it uses — ", "不多不少.")
TOOL: JSON = {
    "id": "VvvODy9mT",
    "type": "function",
    "function": {"name": "price_of", "arguments": '{"model": "large"}'},
    "index": 0,
}


def answer(request: Request) -> Script:
    """The script for one request."""
    asked = json.loads(request.body or b"{}")
    path = request.target.partition("?")[0].partition("#")[0]
    if asked.get("model") == "no-such-model":
        return whole(
            {"object": "error", "message": "Invalid model: no-such-model", "type": "invalid_model", "param": None,
             "code": "1500"}, 400
        )  # fmt: skip
    if path.endswith("/completions"):
        return _chat(asked)
    if path.endswith("/embeddings"):
        return whole(_embeddings(asked))
    if path.endswith("/conversations"):
        return _conversation(asked)
    if path.endswith("/ocr"):
        page = {"index": 0, "markdown": "# Bill", "images": [], "dimensions": {"dpi": 200, "height": 9, "width": 9}}
        return whole({"pages": [page], "model": asked["model"], "usage_info": OCR_USAGE, "document_annotation": None})
    return whole({"detail": "Not Found"}, 404)


def _chat(asked: JSON) -> Script:
    head: JSON = {"id": ID, "created": CREATED, "model": asked.get("model", "mistral-medium-latest")}
    if not asked.get("stream"):
        message: JSON = {"role": "assistant", "content": "".join(PARTS), "tool_calls": None}
        if asked.get("tools"):
            message |= {"content": "", "tool_calls": [TOOL]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if asked.get("tools") else "stop"}
        return whole({**head, "object": "chat.completion", "choices": [choice], "usage": USAGE})
    head["object"] = "chat.completion.chunk"
    deltas = [{"role": "assistant", "content": ""}, *({"content": part} for part in PARTS)]
    events = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events[-1]["choices"][0]["finish_reason"] = "stop"
    events[-1]["usage"] = USAGE
    return streamed(data(*events, b"[DONE]"), "text/event-stream; charset=utf-8")


def _embeddings(asked: JSON) -> JSON:
    inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    vectors = [{"object": "embedding", "embedding": [0.5, 0.25], "index": at} for at in range(len(inputs))]
    usage = {"prompt_tokens": 12, "total_tokens": 12, "completion_tokens": 0, "prompt_tokens_details": None}
    return {"id": ID, "object": "list", "data": vectors, "model": asked["model"], "usage": usage}


def _conversation(asked: JSON) -> Script:
    usage = {"prompt_tokens": 25, "completion_tokens": 31, "total_tokens": 80, "connector_tokens": 24,
             "connectors": {"web_search": 1}}  # fmt: skip
    entry = {
        "object": "entry", "type": "message.output", "id": "msg_1", "role": "assistant", "content": "".join(PARTS),
        "created_at": "2026-11-22T09:00:00Z", "completed_at": "2026-11-22T09:00:01Z", "model": "mistral-medium-latest",
    }  # fmt: skip
    if not asked.get("stream"):
        return whole(
            {"object": "conversation.response", "conversation_id": "conv_1", "outputs": [entry], "usage": usage}
        )
    at = "2026-11-22T09:00:00Z"
    events: list[dict[str, Any]] = [
        {"type": "conversation.response.started", "created_at": at, "conversation_id": "conv_1"},
        *(
            {"type": "message.output.delta", "created_at": at, "output_index": 0, "id": "msg_1", "content_index": 0,
             "model": "mistral-medium-latest", "role": "assistant", "content": part}
            for part in PARTS
        ),
        {"type": "conversation.response.done", "created_at": at, "usage": usage},
    ]  # fmt: skip
    body = b"".join(b"event: %s\n%s" % (event["type"].encode(), data(event)) for event in events)
    return streamed(body)
