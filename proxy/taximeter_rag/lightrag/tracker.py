"""Sums for programs that use LightRAG as a library: a tracker, and what it has been told of each track. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from taximeter_rag import usage
from taximeter_rag.lightrag.answers import Figures

EMBEDDING = ("embedding_tokens", "embedding_calls")


class TokenTracker:
    """LightRAG's TokenTracker with every field of `metrics`, and embeddings; sums over all it was told."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.model: str | None = None
        self.embedding_model: str | None = None
        self.unknown_because = ""
        """Why there was more than is known: calls that did not pass the proxy."""
        self._sums: Counter[str] = Counter(dict.fromkeys((*usage.COUNTS, *EMBEDDING), 0))

    def add_usage(self, token_counts: Mapping[str, Any]) -> None:
        """Add one operation's `metrics`, or one call's counts as LightRAG's own functions report them."""
        self._sums["call_count"] += 0 if "call_count" in token_counts else 1
        for name in usage.COUNTS:
            self._sums[name] += token_counts.get(name) or 0
        if "total_tokens" not in token_counts:
            parts = ("prompt_tokens", "completion_tokens")
            self._sums["total_tokens"] += sum(token_counts.get(name) or 0 for name in parts)
        self.model = token_counts.get("model") or self.model

    def add_embedding_usage(self, tokens: int, calls: int = 1, model: str | None = None) -> None:
        """Add what embeddings used; they are no part of `get_usage`."""
        self._sums["embedding_tokens"] += tokens
        self._sums["embedding_calls"] += calls
        self.embedding_model = model or self.embedding_model

    def get_usage(self) -> dict[str, Any]:
        """All sums of LLM calls; `unknown_because` where there were calls that nobody metered."""
        told = {name: self._sums[name] for name in usage.COUNTS}
        return {**told, "model": self.model, **self._unknown()}

    def get_llm_usage(self) -> dict[str, Any]:
        """`model`, `input_tokens`, `output_tokens`, `total_tokens`, `call_count` of LLM calls."""
        return {
            "model": self.model,
            "input_tokens": self._sums["prompt_tokens"],
            "output_tokens": self._sums["completion_tokens"],
            "total_tokens": self._sums["total_tokens"],
            "call_count": self._sums["call_count"],
            **self._unknown(),
        }

    def get_embedding_usage(self) -> dict[str, Any]:
        """`model`, `total_tokens`, `call_count` of embedding calls."""
        return {
            "model": self.embedding_model,
            "total_tokens": self._sums["embedding_tokens"],
            "call_count": self._sums["embedding_calls"],
            **self._unknown(),
        }

    def _unknown(self) -> dict[str, str]:
        return {"unknown_because": self.unknown_because} if self.unknown_because else {}


class Books:
    """What of each track has been told already, so that nothing is told twice, whoever asks first."""

    def __init__(self) -> None:
        self._told: dict[str, Counter[str]] = {}

    def __contains__(self, track: str) -> bool:
        return track in self._told

    def begin(self, track: str, figures: Figures | None) -> None:
        """Of this track all up to `figures` is not ours to tell; None: it is new."""
        self._told.setdefault(track, Counter() if figures is None else sums(figures))

    def news(self, track: str, figures: Figures) -> Counter[str]:
        """What `figures` has beyond what was told of the track; it counts as told from now on."""
        now, before = sums(figures), self._told.get(track, Counter())
        self._told[track] = now | before  # the larger: two may ask at once
        return now - before


def sums(figures: Figures) -> Counter[str]:
    """A track's counts, of LLM calls and embeddings."""
    found = Counter({name: figures["metrics"][name] for name in usage.COUNTS})
    embedding = figures["usage"]["embedding"]
    found["embedding_tokens"], found["embedding_calls"] = embedding["input_tokens"], embedding["requests"]
    return found


def tell(tracker: Any, news: Counter[str], figures: Figures) -> None:
    """Tell a tracker, ours or LightRAG's own, what is new of a track."""
    model = figures["metrics"]["model"]
    if any(news[name] for name in usage.COUNTS):
        tracker.add_usage({**{name: news[name] for name in usage.COUNTS}, "model": model})
        if not isinstance(tracker, TokenTracker):  # LightRAG's own counts one call each time it is told something
            tracker.call_count += news["call_count"] - 1
    if isinstance(tracker, TokenTracker) and any(news[name] for name in EMBEDDING):
        embedding_model = figures["token_usage"]["embedding_model"]
        tracker.add_embedding_usage(news["embedding_tokens"], news["embedding_calls"], embedding_model)


def together(read: Sequence[Figures]) -> Figures:
    """The figures of one operation's tracks as one; of several with `tracks`, each by itself."""
    if len(read) == 1:
        return read[0]
    documents: dict[str, Any] = {}
    for each in read:
        documents.update(each["documents"])
    return {
        "metrics": _added([each["metrics"] for each in read]),
        "token_usage": _added([each["token_usage"] for each in read]),
        "documents": documents,
        "tracks": read,
    }


def _added(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of numbers; of names the first that is known."""
    total: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            known = total.get(name)
            both = isinstance(value, int) and isinstance(known, int)
            total[name] = known + value if both else known if known is not None else value
    return total
