"""What the plugin adds to LightRAG's answers; every field of LightRAG's stays. Pure: figures in, bodies out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from taximeter_rag import usage

ENDED = frozenset({"processed", "failed"})
PAST = "taximeter_past"
"""Key in a document's metadata, kept by LightRAG: kinds of model whose calls went past the proxy -> where they went."""
UNKNOWN = "unknown_because"
"""Field that says why others are null."""
NOTHING_PASSED = "none of this document's calls passed the proxy, or its records have been deleted"
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


def reason(past: Mapping[str, str], proxy_url: str) -> str:
    """Why something is not metered: `past` is kinds of model -> where their calls went."""
    went = [f"{kind} calls went to {where or 'no proxy that was seen'}" for kind, where in sorted(past.items())]
    return f"{', '.join(went)}, past the proxy {proxy_url}"


def query_fields(
    figures: Figures | None, why: str = "", *, context_only: bool = False, past: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`usage`, `token_usage`, `metrics` of a query; what is not known is null, and `unknown_because` says `why`.

    `past`: the kinds of model whose calls went past the proxy. `context_only`: no answer was generated.
    """
    if figures is None:
        return {"usage": None, "token_usage": usage.unknown(), "metrics": None, UNKNOWN: why}
    past = past or {}
    token_usage = usage.without(figures["token_usage"], past)
    return {
        "usage": usage.usage(figures, past),
        "token_usage": usage.answer_only(token_usage) if context_only else token_usage,
        "metrics": None if "llm" in past else figures["metrics"],
        **({UNKNOWN: why} if past else {}),
    }


def upload_metrics(answer: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """`metrics` of an accepted document: its figures come with /documents/track_status."""
    status = answer.get("status")
    active = status in ("success", "partial_success")
    return {"status": "processing" if active else status, "model": model, "note": "Token tracking active"}


@dataclass(frozen=True)
class Bills:
    """What is known of one track's documents."""

    figures: Figures | None
    why: str = ""
    """Why there are no figures."""
    proxy_url: str = ""
    usages: Mapping[str, Any] = field(default_factory=dict)
    """Document -> its `usage`, with its cost."""
    tag: Callable[[str], str] = str
    """Makes the tag of a document's id."""
    past: Callable[[str], Mapping[str, str]] = lambda _: {}
    """Kinds of model that were seen to go past the proxy, by a document's id."""

    def of(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """A document's metadata with `token_usage`, and `usage` where it is known."""
        kept = dict(document.get("metadata") or {})
        past = {**self.past(document["id"]), **(kept.pop(PAST, None) or {})}
        chunks = max(document.get("chunks_count") or 0, 0)
        figures, tag = self.figures, self.tag(document["id"])
        used = usage.unknown() if figures is None else figures["documents"].get(tag, usage.TOKEN_USAGE)
        why = self.why
        if figures is not None and _status(document) == "processed" and chunks and not used["embedding_tokens"]:
            past.setdefault("embedding", "")  # chunks are always embedded
            if tag not in figures["documents"]:
                past, why = {"embedding": "", "llm": "", **past}, NOTHING_PASSED
        told = {**_in_order(usage.without(used, past), chunks)}
        if figures is None or past:
            told[UNKNOWN] = why or reason(past, self.proxy_url)
        known = self.usages.get(tag)
        shown = {"usage": usage.usage(known, past)} if known is not None else {}
        return {**kept, "token_usage": told, **shown}


def whole_usage(bills: Bills, answer: Mapping[str, Any]) -> dict[str, Any] | None:
    """The `usage`, and cost, of an upload that has ended; null where a document's is not all known."""
    figures = bills.figures
    unknown: set[str] = set()
    for document in answer.get("documents") or ():
        told = bills.of(document)["token_usage"]
        unknown |= {kind for kind, name in _TELLING if told[name] is None}
    return None if figures is None else usage.usage(figures, sorted(unknown))


_TELLING = (("llm", "llm_input_tokens"), ("embedding", "embedding_tokens"))


def _in_order(used: Mapping[str, Any], chunks: int) -> dict[str, Any]:
    return {
        "embedding_tokens": used["embedding_tokens"],
        "llm_input_tokens": used["llm_input_tokens"],
        "llm_output_tokens": used["llm_output_tokens"],
        "total_chunks": chunks,
        "embedding_model": used["embedding_model"],
        "llm_model": used["llm_model"],
    }


def with_bills(answer: Mapping[str, Any], bills: Callable[[Mapping[str, Any]], Bills | None]) -> dict[str, Any]:
    """Any answer that lists documents, with the metadata of those that have ended; `bills` are those of a document."""

    def billed(document: Mapping[str, Any]) -> Mapping[str, Any]:
        known = bills(document) if _status(document) in ENDED else None
        return document if known is None else {**document, "metadata": known.of(document)}

    told = dict(answer)
    if isinstance(told.get("documents"), list):
        told["documents"] = [billed(each) for each in told["documents"]]
    if isinstance(told.get("statuses"), dict):
        told["statuses"] = {name: [billed(each) for each in group] for name, group in told["statuses"].items()}
    return told


def listed(answer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The documents of an answer of /documents, /documents/paginated or /documents/track_status."""
    if isinstance(answer.get("documents"), list):
        yield from answer["documents"]
    if isinstance(answer.get("statuses"), dict):
        for group in answer["statuses"].values():
            yield from group


def summary(answer: Mapping[str, Any], *, accepted: bool) -> dict[str, int]:
    """LightRAG's own counts (its keys depend on its version), and those that operators wait for.

    `accepted`: the upload is still at work; while it has noted none but the duplicates it found first, one is pending.
    """
    documents = answer.get("documents") or ()
    states = [_status(each) for each in documents]
    counts = {name: states.count(name) for name in ("pending", "processed", "failed")}
    counts["processing"] = len(states) - sum(counts.values())  # parsing and analyzing too
    scan = str(answer.get("track_id", "")).startswith("scan")  # it notes one document after the other
    noted = any(not (each.get("metadata") or {}).get("is_duplicate") for each in documents)
    counts["pending"] += accepted and set(states) <= ENDED and (scan or not noted)
    return {**(answer.get("status_summary") or {}), **counts}


def all_ended(answer: Mapping[str, Any]) -> bool:
    """Whether no document of a track_status answer is still being worked on."""
    return all(_status(document) in ENDED for document in answer.get("documents") or ())


def ended_by_track(answer: Mapping[str, Any]) -> dict[str, set[str]]:
    """The documents of an answer that have ended, by their tracks."""
    found: dict[str, set[str]] = {}
    for each in listed(answer):
        track = each.get("track_id")
        if isinstance(track, str) and track and _status(each) in ENDED:
            found.setdefault(track, set()).add(each["id"])
    return found


def any_ended(answer: Mapping[str, Any]) -> bool:
    return any(_status(document) in ENDED for document in listed(answer))


def _status(document: Mapping[str, Any]) -> str:
    return str(document.get("status", "")).lower()
