"""What Ollama answers (github.com/ollama/ollama, docs/api.md): chat, generate, embed, whole or as NDJSON."""

from __future__ import annotations

import json

from providers.scripts import JSON, ndjson, streamed, whole
from upstream import Request, Script

COUNTS: JSON = {"prompt_eval_count": 17, "eval_count": 50}
"""What a call uses."""

TIMES: JSON = {
    "total_duration": 1897385625,
    "load_duration": 1631208,
    "prompt_eval_duration": 313560000,
    "eval_duration": 1577990000,
}
AT = "2026-11-22T09:00:00.123456Z"
PARTS = ("A call costs ", "what it uses — ", "不多不少.")


def answer(request: Request) -> Script:
    """The script for one request."""
    asked = json.loads(request.body or b"{}")
    model = asked.get("model", "")
    if model == "no-such-model":
        return whole({"error": "model 'no-such-model' not found"}, 404)
    if request.target.endswith("/api/embed"):
        inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        vectors = [[0.5, -0.25] for _ in inputs]
        return whole(
            {"model": model, "embeddings": vectors, "total_duration": 14143917, "load_duration": 1019500,
             "prompt_eval_count": 8}
        )  # fmt: skip
    if request.target.endswith("/api/embeddings"):
        return whole({"embedding": [0.5, -0.25]})
    chat = request.target.endswith("/api/chat")
    counts = {name: value for name, value in COUNTS.items() if name == "eval_count" or not model.endswith("-cached")}

    def line(text: str) -> JSON:
        said: JSON = {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
        return {"model": model, "created_at": AT, **said, "done": False}

    end: JSON = {"done": True, "done_reason": "stop", **TIMES, **counts}
    if asked.get("stream") is False:
        return whole({**line("".join(PARTS)), **end})
    return streamed(ndjson(*map(line, PARTS), {**line(""), **end}), "application/x-ndjson")
