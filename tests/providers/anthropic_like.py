"""What Anthropic answers (docs.anthropic.com: Messages, Streaming Messages, Errors), with cache counts of every kind.

The model's name says what is wanted: `…-tools` calls a tool, `…-overloaded` fails in mid-stream, `…-missing` is a 404.
"""

from __future__ import annotations

import json

from providers.scripts import JSON, named, streamed, whole
from upstream import Request, Script

ID = [("request-id", "req_011CSHoEeqs5C35K2UUqR7Fy"), ("anthropic-organization-id", "a1b2")]

USAGE: JSON = {
    "input_tokens": 21,
    "cache_creation_input_tokens": 120,
    "cache_read_input_tokens": 1031,
    "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 100},
    "output_tokens": 58,
    "service_tier": "standard",
}
"""What a call uses: 1,172 tokens of input in all, of which 1,031 were read from the cache and 120 written to it."""

TEXT = "A call costs what it uses — nicht mehr, 不多不少."
TOOL: JSON = {
    "type": "tool_use",
    "id": "toolu_01T1x1fJ34qAmk2t",
    "name": "price_of",
    "input": {"model": "opus"},
}


def answer(request: Request) -> Script:
    """The script for one request."""
    asked = json.loads(request.body or b"{}")
    model = asked.get("model", "claude-3-7-sonnet@20250219")
    if request.target.endswith("/count_tokens"):
        return whole({"input_tokens": 2095}, headers=ID)
    if model.endswith("-missing"):
        return error(404, "not_found_error", f"model: {model}")
    if asked.get("stream"):
        body = _stream(model)
        if model.endswith("-overloaded"):
            stop = body.index(b"event: message_delta")
            failure = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
            body = body[:stop] + named(failure)
        return streamed(body, "text/event-stream; charset=utf-8", ID)
    return whole(_message(model, [TOOL] if model.endswith("-tools") else [{"type": "text", "text": TEXT}]), headers=ID)


def error(status: int, kind: str, message: str) -> Script:
    return whole(
        {"type": "error", "error": {"type": kind, "message": message}, "request_id": ID[0][1]}, status, headers=ID
    )


def _message(model: str, content: list[JSON]) -> JSON:
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "tool_use" if content == [TOOL] else "end_turn",
        "stop_sequence": None,
        "usage": USAGE,
    }


def _stream(model: str) -> bytes:
    start = {**_message(model, []), "stop_reason": None, "usage": {**USAGE, "output_tokens": 2}}
    tools = model.endswith("-tools")
    if tools:
        arguments = json.dumps(TOOL["input"])
        block: JSON = {**TOOL, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in ("", arguments[:9], arguments[9:])]
    else:
        block = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": part} for part in (TEXT[:7], TEXT[7:30], TEXT[30:])]
    return named(
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use" if tools else "end_turn", "stop_sequence": None},
            "usage": {name: USAGE[name] for name in USAGE if name.endswith("_tokens")},
        },
        {"type": "message_stop"},
    )
