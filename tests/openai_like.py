"""What the scripted provider answers when nothing is scripted: OpenAI's API, with usage that follows from the text.

Pure: a request in, an `Answer` out. Tokens are words, so a test can say beforehand what will be billed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

JSON = dict[str, Any]
CREATED = 1_790_000_000


@dataclass(slots=True)
class Answer:
    """`events` None: unary `body`. Else server-sent events; `usage` is what is billed (None: nothing)."""

    status: int = 200
    body: JSON = field(default_factory=dict)
    events: list[bytes] | None = None
    model: str | None = None
    usage: JSON | None = None


def answer(path: str, body: bytes, *, call_id: str, chunks: int, reject_stream_options: bool = False) -> Answer:
    """Answer a POST. `chunks`: least number of words (and so of streamed deltas) of a generated text."""
    if path.endswith("/files"):
        digest = hashlib.sha256(body).hexdigest()
        return Answer(body={"id": f"file-{call_id}", "object": "file", "bytes": len(body), "sha256": digest})
    make = next((make for end, make in _APIS.items() if path.endswith(end)), None)
    if make is None:
        return error(404, f"Unknown request URL: POST {path}", "unknown_url")
    try:
        request = json.loads(body)
        assert isinstance(request, dict)
    except (ValueError, AssertionError):
        return error(400, "We could not parse the JSON body of your request.", None)
    if request.get("model") == "no-such-model":
        return error(404, "The model `no-such-model` does not exist.", "model_not_found")
    if reject_stream_options and "stream_options" in request:
        return error(400, "Unrecognized request argument supplied: stream_options", None, "stream_options")
    return make(request, call_id, chunks)


def models() -> JSON:
    """The body of GET /v1/models."""
    names = ("gpt-4o-mini", "gpt-4.1", "text-embedding-3-small", "rerank-v3.5")
    data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "scripted"} for name in names]
    return {"object": "list", "data": data}


def error(status: int, message: str, code: str | None, param: str | None = None) -> Answer:
    kind = "invalid_request_error"
    return Answer(status, {"error": {"message": message, "type": kind, "param": param, "code": code}})


def words(value: Any) -> list[str]:
    """Every word of every text inside a message, a prompt or a list of content parts."""
    if isinstance(value, str):
        return value.split()
    if isinstance(value, dict):
        return words(value.get("content", value.get("text", "")))
    if isinstance(value, list):
        return [word for item in value for word in words(item)]
    return [str(value)] if isinstance(value, int) else []


def sse(payload: JSON | str, event: str = "") -> bytes:
    """One server-sent event."""
    data = payload if isinstance(payload, str) else json.dumps(payload, separators=(",", ":"))
    return (f"event: {event}\n" if event else "").encode() + b"data: " + data.encode() + b"\n\n"


def _text(prompt: Iterable[str], chunks: int, limit: int | None) -> tuple[list[str], str]:
    """The generated words: the prompt echoed (so a mixed-up answer shows), padded to `chunks`, cut at `limit`."""
    said = ["echo:", *list(prompt)[:64]]
    said += [f"w{n}" for n in range(chunks - len(said))]
    cut = limit is not None and len(said) > limit
    return (said[:limit], "length") if cut else (said, "stop")


def _chat_usage(prompt: int, output: int, model: str) -> JSON:
    reasoning = output // 4 if model.startswith("o") else 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output + reasoning,
        "total_tokens": prompt + output + reasoning,
        "prompt_tokens_details": {"cached_tokens": prompt // 4, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _chat(request: JSON, call_id: str, chunks: int) -> Answer:
    messages = request.get("messages") or []
    model = str(request.get("model"))
    said, finish = _text(
        words(messages[-1:]), chunks, request.get("max_completion_tokens") or request.get("max_tokens")
    )
    count = request.get("n") or 1
    usage = _chat_usage(len(words(messages)) + 3 * len(messages), len(said) * count, model)
    head = {"id": f"chatcmpl-{call_id}", "created": CREATED, "model": model, "service_tier": "default"}
    if not request.get("stream"):
        message = {"role": "assistant", "content": " ".join(said), "refusal": None}
        choices = [{"index": n, "message": message, "logprobs": None, "finish_reason": finish} for n in range(count)]
        body = {**head, "object": "chat.completion", "choices": choices, "usage": usage}
        return Answer(body=body, model=model, usage=usage)
    asked = bool((request.get("stream_options") or {}).get("include_usage"))
    chunk = {**head, "object": "chat.completion.chunk"}

    def event(index: int, delta: JSON, finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse({**chunk, "choices": [choice], **({"usage": None} if asked else {})})

    events = [event(n, {"role": "assistant", "content": ""}) for n in range(count)]
    for at, word in enumerate(said):
        events += [event(n, {"content": word if at == 0 else " " + word}) for n in range(count)]
    events += [event(n, {}, finish) for n in range(count)]
    if asked:
        events.append(sse({**chunk, "choices": [], "usage": usage}))
    return Answer(events=[*events, sse("[DONE]")], model=model, usage=usage)


def _completions(request: JSON, call_id: str, chunks: int) -> Answer:
    model = str(request.get("model"))
    prompt = words(request.get("prompt") or "")
    said, finish = _text(prompt, chunks, request.get("max_tokens"))
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(said), "total_tokens": len(prompt) + len(said)}
    head = {"id": f"cmpl-{call_id}", "object": "text_completion", "created": CREATED, "model": model}

    def choice(text: str, finish: str | None) -> JSON:
        return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}

    if not request.get("stream"):
        body = {**head, "choices": [choice(" ".join(said), finish)], "usage": usage}
        return Answer(body=body, model=model, usage=usage)
    events = [sse({**head, "choices": [choice(word + " ", None)]}) for word in said]
    events.append(sse({**head, "choices": [choice("", finish)]}))
    if (request.get("stream_options") or {}).get("include_usage"):
        events.append(sse({**head, "choices": [], "usage": usage}))
    return Answer(events=[*events, sse("[DONE]")], model=model, usage=usage)


def _embeddings(request: JSON, call_id: str, chunks: int) -> Answer:
    model = str(request.get("model"))
    given = request.get("input")
    inputs = given if isinstance(given, list) and not (given and isinstance(given[0], int)) else [given]
    size = request.get("dimensions") or 8
    as_base64 = request.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(inputs):
        seed = hashlib.sha256(json.dumps(text).encode()).digest()
        vector = [(seed[n % 32] - 128) / 128 for n in range(size)]
        packed = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": packed if as_base64 else vector})
    tokens = len(words(given))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer(body={"object": "list", "data": data, "model": model, "usage": usage}, model=model, usage=usage)


def _responses(request: JSON, call_id: str, chunks: int) -> Answer:
    model = str(request.get("model"))
    given = request.get("input") or ""
    prompt = words(given)
    said, finish = _text(
        prompt if isinstance(given, str) else words(given[-1:]), chunks, request.get("max_output_tokens")
    )
    chat = _chat_usage(len(prompt) + 3, len(said), model)
    usage = {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": chat["prompt_tokens_details"]["cached_tokens"]},
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": chat["completion_tokens_details"]["reasoning_tokens"]},
        "total_tokens": chat["total_tokens"],
    }
    status = "completed" if finish == "stop" else "incomplete"
    text = " ".join(said)
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": f"msg-{call_id}", "type": "message", "role": "assistant", "status": status, "content": [part]}
    opened: JSON = {
        "id": f"resp-{call_id}",
        "object": "response",
        "created_at": CREATED,
        "model": model,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": request.get("instructions"),
        "metadata": request.get("metadata") or {},
        "output": [],
        "parallel_tool_calls": True,
        "service_tier": "default",
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
    }
    why = {"reason": "max_output_tokens"} if finish == "length" else None
    body = {**opened, "status": status, "incomplete_details": why, "output": [item], "usage": usage}
    if not request.get("stream"):
        return Answer(body=body, model=model, usage=usage)
    where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    empty = {**part, "text": ""}
    typed: list[JSON] = [
        {"type": "response.created", "response": opened},
        {"type": "response.in_progress", "response": opened},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **where, "part": empty},
    ]
    for at, word in enumerate(said):
        delta = word if at == 0 else " " + word
        typed.append({"type": "response.output_text.delta", **where, "delta": delta, "logprobs": []})
    typed += [
        {"type": "response.output_text.done", **where, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **where, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": f"response.{status}", "response": body},
    ]
    events = [sse({**event, "sequence_number": n}, event["type"]) for n, event in enumerate(typed)]
    return Answer(events=events, model=model, usage=usage)


def _rerank(request: JSON, call_id: str, chunks: int) -> Answer:
    """Cohere bills searches (one per query and 100 documents), Jina tokens."""
    model = str(request.get("model"))
    documents = request.get("documents") or []
    query = words(request.get("query") or "")
    results = [{"index": n, "relevance_score": round(0.9 / (n + 1), 6)} for n in range(len(documents))]
    results = results[: request.get("top_n") or len(results)]
    if model.startswith("jina"):
        tokens = len(query) * max(1, len(documents)) + len(words(documents))
        usage: JSON = {"total_tokens": tokens}
        body = {"model": model, "object": "list", "usage": usage, "results": results}
        return Answer(body=body, model=model, usage=usage)
    usage = {"search_units": max(1, -(-len(documents) // 100))}
    body = {"id": call_id, "results": results, "meta": {"api_version": {"version": "2"}, "billed_units": usage}}
    return Answer(body=body, model=model, usage=usage)


_APIS = {
    "/chat/completions": _chat,
    "/completions": _completions,
    "/embeddings": _embeddings,
    "/responses": _responses,
    "/rerank": _rerank,
}
