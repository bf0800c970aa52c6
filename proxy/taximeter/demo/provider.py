"""A made-up provider: OpenAI's API on loopback, and the bill it would send, kept by API key and model.

It counts and prices by itself, so that its bill is a second opinion and not Taximeter's own figure.
"""

from __future__ import annotations

import base64
import json
import struct
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

JSON = dict[str, Any]

USD_PER_MILLION = {
    "gpt-4o-mini": {"input": "0.15", "cached": "0.075", "output": "0.60"},
    "o4-mini": {"input": "1.10", "cached": "0.275", "output": "4.40"},
    "text-embedding-3-small": {"input": "0.02"},
    "rerank-v3.5": {"search_units": "2000"},
}
"""Its price list; `cached` and `input` are the two parts of a prompt."""


@dataclass
class Bill:
    """What one customer used of one model."""

    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0
    search_units: int = 0

    def cost_usd(self, model: str) -> Decimal:
        """By the price list, exact."""
        fresh = self.input_tokens - self.cached_input_tokens
        used = {"input": fresh, "cached": self.cached_input_tokens, "output": self.output_tokens}
        used["search_units"] = self.search_units
        prices = USD_PER_MILLION[model]
        return sum((Decimal(prices[name]) * used[name] / 1_000_000 for name in prices), Decimal(0))


@dataclass
class Provider:
    """An ASGI application; `bills` by (API key, model)."""

    bills: dict[tuple[str, str], Bill] = field(default_factory=lambda: defaultdict(Bill))
    calls: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = dict(scope["headers"])
        key = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
        make = _APIS.get(scope["path"])
        if make is None or not key:
            await _send_json(send, 404 if key else 401, {"error": {"message": "no such thing", "type": "demo"}})
            return
        self.calls += 1
        request = json.loads(body)
        answer = make(request, f"demo-{self.calls}")
        bill = self.bills[key, request["model"]]
        _add(bill, answer)
        if request.get("stream"):
            await _send_events(send, _events(request, answer))
        else:
            await _send_json(send, 200, answer)


def _add(bill: Bill, answer: JSON) -> None:
    bill.requests += 1
    usage = answer.get("usage") or {}
    prompt = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    output = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    bill.input_tokens += usage.get("prompt_tokens", usage.get("input_tokens", 0))
    bill.cached_input_tokens += prompt.get("cached_tokens", 0)
    bill.output_tokens += usage.get("completion_tokens", usage.get("output_tokens", 0))
    bill.reasoning_output_tokens += output.get("reasoning_tokens", 0)
    bill.search_units += answer.get("meta", {}).get("billed_units", {}).get("search_units", 0)


def _tokens(value: object) -> int:
    """Its tokenizer: one token for each four characters of JSON, at least one."""
    return max(1, len(json.dumps(value)) // 4)


def _words(request: JSON) -> list[str]:
    return f"This is what {request['model']} says about it in a few more words than were asked for .".split()


def _chat(request: JSON, call_id: str) -> JSON:
    prompt, words = _tokens(request["messages"]), _words(request)
    reasoning = 40 if request["model"].startswith("o") else 0
    output = len(words) + reasoning
    return {
        "id": f"chatcmpl-{call_id}",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": request["model"],
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": " ".join(words)}, "finish_reason": "stop"}
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": prompt // 3},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        },
    }


def _responses(request: JSON, call_id: str) -> JSON:
    prompt, words = _tokens(request["input"]), _words(request)
    text = {"type": "output_text", "text": " ".join(words), "annotations": []}
    return {
        "id": f"resp-{call_id}",
        "object": "response",
        "created_at": 1_790_000_000,
        "status": "completed",
        "model": request["model"],
        "output": [{"id": "msg-1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": len(words),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + len(words),
        },
    }


def _embeddings(request: JSON, call_id: str) -> JSON:
    texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
    vector: Any = [0.25, -0.5, 0.125, 0.0]
    if request.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<4f", *vector)).decode()
    prompt = _tokens(texts)
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": n, "embedding": vector} for n in range(len(texts))],
        "model": request["model"],
        "usage": {"prompt_tokens": prompt, "total_tokens": prompt},
    }


def _rerank(request: JSON, call_id: str) -> JSON:
    results = [{"index": n, "relevance_score": 1 / (n + 1)} for n in range(len(request["documents"]))]
    return {"id": call_id, "results": results, "meta": {"billed_units": {"search_units": 1}}}


_APIS = {
    "/v1/chat/completions": _chat,
    "/v1/responses": _responses,
    "/v1/embeddings": _embeddings,
    "/v1/rerank": _rerank,
}


async def _events(request: JSON, answer: JSON) -> AsyncIterator[bytes]:
    """The answer as OpenAI streams it; usage only where it was asked for."""
    if answer["object"] == "response":
        yield _event({"type": "response.created", "response": answer | {"usage": None}, "sequence_number": 0})
        yield _event({"type": "response.completed", "response": answer, "sequence_number": 1})
        return
    head = {"id": answer["id"], "object": "chat.completion.chunk", "created": answer["created"]}
    head["model"] = answer["model"]
    for word in answer["choices"][0]["message"]["content"].split():
        delta = {"role": "assistant", "content": word + " "}
        yield _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (request.get("stream_options") or {}).get("include_usage"):
        yield _event({**head, "choices": [], "usage": answer["usage"]})
    yield b"data: [DONE]\n\n"


def _event(payload: JSON) -> bytes:
    name = f"event: {payload['type']}\n" if "type" in payload else ""
    return f"{name}data: {json.dumps(payload)}\n\n".encode()


async def _send_json(send: Any, status: int, body: JSON) -> None:
    data = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def _send_events(send: Any, events: AsyncIterator[bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    async for event in events:
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
