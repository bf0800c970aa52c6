"""What the plugin adds to LightRAG's answers; every field of LightRAG's stays. Pure: figures in, bodies out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from taximeter_rag import usage

ENDED = frozenset({"processed", "failed"})
Figures = Mapping[str, Any]
"""A track as the control port tells it."""


def parsed(body: bytes) -> dict[str, Any] | None:
    """A JSON object; None for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def shown(value: Mapping[str, Any]) -> bytes:
    """As LightRAG's framework writes JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def context_only(request: Mapping[str, Any] | None) -> bool:
    """Whether a query asks for what would be sent to the model, not for an answer."""
    return request is not None and bool(request.get("only_need_context") or request.get("only_need_prompt"))


def query_fields(figures: Figures | None, *, context_only: bool) -> dict[str, Any]:
    """`usage`, `token_usage`, `metrics` of a query; null where the control port did not answer."""
    if figures is None:
        return {"usage": None, "token_usage": None, "metrics": None}
    token_usage = figures["token_usage"]
    return {
        "usage": usage.usage(figures),
        "token_usage": usage.answer_only(token_usage) if context_only else token_usage,
        "metrics": figures["metrics"],
    }


def upload_metrics(answer: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """`metrics` of an accepted document: its figures come with /documents/track_status."""
    status = answer.get("status")
    active = status in ("success", "partial_success")
    return {"status": "processing" if active else status, "model": model, "note": "Token tracking active"}


def with_token_usage(answer: Mapping[str, Any], figures: Figures | None, document_tag: Any) -> dict[str, Any]:
    """/documents/track_status with `metadata.token_usage` on each document that has ended.

    `document_tag` makes the tag of a document's id. Without figures it is null: not known.
    """
    documents = [
        {**each, "metadata": {**(each.get("metadata") or {}), "token_usage": _token_usage(each, figures, document_tag)}}
        if _status(each) in ENDED
        else each
        for each in answer.get("documents") or ()
    ]
    return {**answer, "documents": documents, "status_summary": _summary(answer)}


def _summary(answer: Mapping[str, Any]) -> dict[str, int]:
    """LightRAG's own counts (its keys depend on its version), and those that operators wait for."""
    states = [_status(each) for each in answer.get("documents") or ()]
    counts = {name: states.count(name) for name in ("pending", "processed", "failed")}
    counts["processing"] = len(states) - sum(counts.values())  # parsing and analyzing too
    return {**(answer.get("status_summary") or {}), **counts}


def all_ended(answer: Mapping[str, Any]) -> bool:
    """Whether no document of a track_status answer is still being worked on."""
    return all(_status(document) in ENDED for document in answer.get("documents") or ())


def _status(document: Mapping[str, Any]) -> str:
    return str(document.get("status", "")).lower()


def _token_usage(document: Mapping[str, Any], figures: Figures | None, document_tag: Any) -> dict[str, Any] | None:
    if figures is None:
        return None
    used = figures["documents"].get(document_tag(document["id"]), usage.TOKEN_USAGE)
    chunks = document.get("chunks_count")
    return {
        "embedding_tokens": used["embedding_tokens"],
        "llm_input_tokens": used["llm_input_tokens"],
        "llm_output_tokens": used["llm_output_tokens"],
        "total_chunks": chunks if chunks is not None and chunks > 0 else 0,
        "embedding_model": used["embedding_model"],
        "llm_model": used["llm_model"],
    }
