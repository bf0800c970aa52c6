"""What Gemini answers (ai.google.dev: GenerateContentResponse, UsageMetadata, embeddings), on Google AI and on Vertex.

The model's name says what is wanted: `…-missing` is a 404, `…-blocked` refuses the prompt.
"""

from __future__ import annotations

import json

from providers.scripts import JSON, data, streamed, whole
from upstream import Request, Script

USAGE: JSON = {
    "promptTokenCount": 40,
    "candidatesTokenCount": 7,
    "totalTokenCount": 78,
    "cachedContentTokenCount": 16,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 30}, {"modality": "IMAGE", "tokenCount": 10}],
    "thoughtsTokenCount": 25,
    "toolUsePromptTokenCount": 6,
}
"""What a call uses: 46 of input (6 by its tools), 32 of output (25 in thought)."""

PARTS = ("A call costs ", "what it uses — ", "不多不少.")
EMBEDDING = [0.01, -0.02, 0.03]


def answer(request: Request) -> Script:
    """The script for one request."""
    path, _, query = request.target.partition("?")
    model, _, method = path.rpartition("/")[2].partition(":")
    asked = json.loads(request.body or b"{}")
    if model.endswith("-missing"):
        return _error(404, "NOT_FOUND", f"models/{model} is not found for API version v1beta.")
    if method == "streamGenerateContent":
        events = _events(model)
        if "alt=sse" in query:
            return streamed(data(*events, end=b"\r\n"))
        return streamed(json.dumps(events, indent=2).encode(), "application/json; charset=UTF-8")
    if method == "generateContent":
        return whole(_blocked(model) if model.endswith("-blocked") else _content(model, "".join(PARTS), "STOP", USAGE))
    if method == "batchEmbedContents":
        return whole({"embeddings": [{"values": EMBEDDING} for _ in asked["requests"]]})
    if method == "embedContent":
        usage = {"promptTokenCount": 4, "promptTokenDetails": [{"modality": "TEXT", "tokenCount": 4}]}
        return whole({"embedding": {"values": EMBEDDING}, "usageMetadata": usage})
    if method == "predict":
        statistics = {"token_count": 4, "truncated": False}
        one = {"embeddings": {"statistics": statistics, "values": EMBEDDING}}
        return whole({"predictions": [one for _ in asked["instances"]], "metadata": {"billableCharacterCount": 9}})
    if method == "countTokens":
        return whole({"totalTokens": 31, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 31}]})
    return _error(404, "NOT_FOUND", path)


def _error(status: int, name: str, message: str) -> Script:
    return whole({"error": {"code": status, "message": message, "status": name}}, status)


def _content(model: str, text: str, reason: str | None, usage: JSON) -> JSON:
    candidate: JSON = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": model,
        "responseId": "OopyavzdMqTQjrEPqLCdqAc",
    }


def _blocked(model: str) -> JSON:
    usage = {"promptTokenCount": 40, "totalTokenCount": 40}
    return {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage, "modelVersion": model}


def _events(model: str) -> list[JSON]:
    """Every chunk repeats the usage; it grows, and only the last one is final."""
    first = {**USAGE, "candidatesTokenCount": 2, "thoughtsTokenCount": 25, "totalTokenCount": 73}
    second = {**USAGE, "candidatesTokenCount": 5, "totalTokenCount": 76}
    reasons = (None, None, "STOP")
    return [
        _content(model, part, reason, usage)
        for part, reason, usage in zip(PARTS, reasons, (first, second, USAGE), strict=True)
    ]
