"""A provider that reads whatever it gets as leniently as any is known to, and bills what it read to the full."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from typing import Any

import brotli
from backports.zstd import decompress

from upstream import Request, Script, response

UNDO = {"gzip": gzip.decompress, "deflate": zlib.decompress, "br": brotli.decompress, "zstd": decompress}
DEFAULT_ANSWER = 50
SEARCHES = 20
KEPT_TOKENS = 100_000


def answer(request: Request) -> Script:
    """Bill a chat, embeddings, rerank or responses call; anything it cannot read is its own 400."""
    try:
        asked = _read(request)
    except (ValueError, KeyError):
        return Script((response(b'{"error":{}}', 400, [("content-type", "application/json")]),))
    body = json.dumps({"id": "c", "model": asked.get("model"), **_bill(asked)}).encode()
    return Script((response(body, headers=[("content-type", "application/json")]),))


def _read(request: Request) -> dict[str, Any]:
    body = request.body
    for coding in reversed((request.header("content-encoding") or "identity").split(", ")):
        body = UNDO.get(coding, bytes)(body)
    kind = request.header("content-type") or ""
    if kind.startswith("multipart/"):
        return dict(re.findall(r'name="(\w+)"\r\n\r\n(.*?)\r\n--', body.decode("latin-1"), re.DOTALL))
    text = body.decode(json.detect_encoding(body), "replace").removeprefix("\ufeff")
    value, _ = json.JSONDecoder(strict=False).raw_decode(re.sub(r"/\*.*?\*/", "", text).strip())
    return {name.lower(): inner for name, inner in value.items()}


def _bill(asked: dict[str, Any]) -> dict[str, Any]:
    def number(name: str, otherwise: int) -> int:
        return int(float(str(asked.get(name, otherwise)).replace("_", "")) or otherwise)

    longest = max(number(name, 0) for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"))
    answered = (longest or DEFAULT_ANSWER) * number("n", 1)
    read = len(json.dumps(asked.get("messages", asked.get("input", "")), ensure_ascii=False).encode("utf-8", "replace"))
    if "previous_response_id" in asked or "http" in json.dumps(asked.get("messages", "")):
        read += KEPT_TOKENS
    if "documents" in asked:
        return {"meta": {"billed_units": {"search_units": -(-len(asked["documents"]) // 100)}}, "results": []}
    usage: dict[str, Any] = {
        "prompt_tokens": read // 4,
        "completion_tokens": answered,
        "total_tokens": read // 4 + answered,
    }
    if asked.get("tools"):
        usage["server_tool_use"] = {"web_search_requests": SEARCHES}
    return {"usage": usage, "choices": []}
