"""Gemini's own API, on Google AI and Vertex: `:generateContent`, `:streamGenerateContent`, embeddings, interactions.

`thoughtsTokenCount` is NOT inside `candidatesTokenCount` and `toolUsePromptTokenCount` is NOT inside
`promptTokenCount`; `cachedContentTokenCount` IS inside `promptTokenCount`; `totalTokenCount` is the sum of the four
(ai.google.dev, UsageMetadata). Absent counts are zeros left out, as protobuf's JSON does: the total tells. A stream
repeats the object; its counters can restart, so the last chunk that counts anything stands as a whole. Without
`alt=sse` the stream is one JSON array.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast

from msgspec.structs import replace

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.framing.body import BodyMeter
from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.usage import conventions
from taximeter.flavors.usage.counts import Fields, Members, added, count, decode, fields, first, items
from taximeter.flavors.usage.reader import UsageReader, Verdict, kept_counts, value_of
from taximeter.flavors.usage.row import Row
from taximeter.flavors.usage.usual import USAGE_RAW_BYTES


class TieredReader(UsageReader):
    """An answer whose head tells the tier it was served in, which may be a lower one than was asked for
    (https://ai.google.dev/gemini-api/docs/priority-inference)."""

    __slots__ = ()

    def reading(self) -> Reading:
        """See `UsageReader.reading`."""
        reading = super().reading()
        reading.service_tier = reading.service_tier or self.answer.value_of(_TIER).decode("latin-1") or None
        return reading


class GenerateReader(TieredReader):
    """Generated content, whole, in events or in an array."""

    __slots__ = ("_asked", "_maps", "_passed", "_queries", "_store")

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(row, prepared, answer, provider)
        self._asked = prepared.model
        self._queries: set[str] = set()
        self._passed = b""
        self._maps = False
        self._store = False

    def take(self, found: Members) -> Verdict:
        verdict = super().take(found)
        candidates = found.get("candidates")
        if candidates is not None and _GROUNDING in bytes(candidates):
            self._look_up(map(fields, items(decode(candidates))))
        return verdict

    def passing(self, piece: bytes) -> None:
        """Finds in an answer too long to be kept (it holds an image) what was looked up; found twice is found once."""
        seen = self._passed + piece
        for match in _queries(seen):
            listed = value_of(seen[match.end() : match.end() + _GROUNDED_BYTES])
            self._ask(items(decode(listed)) if listed else ())
        self._maps = self._maps or _map_chunk(seen) is not None
        self._store = self._store or _asks_store(seen) is not None
        self._passed = seen[-_GROUNDED_BYTES:]

    def event_in_part(self, head: bytes, tail: bytes) -> None:
        """See `passing`."""
        for piece in (head, tail):
            self._passed = b""
            self.passing(piece)
        super().event_in_part(head, tail)

    def _look_up(self, candidates: Iterable[Fields]) -> None:
        for candidate in candidates:
            grounded = fields(candidate.get("groundingMetadata"))
            for name in ("webSearchQueries", "imageSearchQueries"):
                self._ask(items(grounded.get(name)))
            self._store = self._store or bool(items(grounded.get("retrievalQueries")))
            chunks = map(fields, items(grounded.get("groundingChunks")))
            self._maps = self._maps or any("maps" in chunk for chunk in chunks)

    def _ask(self, queries: Iterable[object]) -> None:
        self._queries.update(query for query in queries if isinstance(query, str) and query)

    def convert(self) -> Reading:
        """With what was looked up: of Gemini 3 every distinct query is billed, of earlier ones the prompt
        (https://ai.google.dev/gemini-api/docs/google-search, "Pricing")."""
        reading = super().convert()
        if self._queries:
            reading.web_search_requests = (
                1 if conventions.by_prompt(self.model or self._asked or "") else len(self._queries)
            )
        if self._maps:
            reading.maps_requests = 1
        # what asking a store of one's own costs depends on which it is, and that is not told
        # (https://cloud.google.com/vertex-ai/generative-ai/pricing, "Grounding with your data")
        reading.priced_in_part = self._store
        return reading

    def report(self, usage: Fields, raw: bytes) -> None:
        counts = [
            figure for name in usage if name.endswith("TokenCount") and (figure := count(usage[name])) is not None
        ]
        if any(counts) or (counts and not self.usage):
            kept = kept_counts(self.usage, usage)  # a 0 that is told erases no count; one that is left out does
            self.usage = {**usage, **kept} if len(raw) <= USAGE_RAW_BYTES else {}
            self.keep_raw(b"" if kept else raw)


class LiveReader(GenerateReader):
    """What the model generates once on a connection of the Live API; grounding is repeated with each of its parts."""

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        verdict = super().take(found)
        told = found.get("serverContent")
        if told is not None and _GROUNDING in bytes(told):
            self._look_up((fields(decode(told)),))
        return verdict


class PredictReader(UsageReader):
    """Vertex' text embeddings: each prediction carries its own `token_count`, so they are summed."""

    __slots__ = ("_carried",)

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(row, prepared, answer, provider)
        self._carried = b""

    def scan(self, chunk: bytes) -> None:
        """Counts stand between the vectors of an answer that may be megabytes long, so they are added as it passes."""
        seen = self._carried + chunk
        end = 0
        for match in _token_count(seen):
            end = match.end()
            counted = added(first(self.usage, "token_count"), int(match.group(1)))
            self.report({"token_count": counted}, b"")
        self._carried = seen[max(end, len(seen) - _CARRIED_BYTES) :]

    def convert(self) -> Reading:
        return Reading(input_tokens=first(self.usage, "token_count"))


class PredictMeter(BodyMeter):
    """A body whose counts are scattered over its whole length."""

    __slots__ = ("_scan",)

    def __init__(self, reader: UsageReader) -> None:
        super().__init__(reader)
        self._scan = cast("PredictReader", reader).scan  # `reader` and `body_meter` stand in one row

    def feed(self, chunk: bytes) -> bytes:
        """See `Meter.feed`: always the very same chunk."""
        self._scan(chunk)
        return super().feed(chunk)


_TIER = b"x-gemini-service-tier"
_GROUNDING = b'"groundingMetadata"'
_GROUNDED_BYTES = 4096
"""Longest list of queries that is read in an answer too long to be kept; each has some dozens of characters."""
_queries = re.compile(rb'"(?:web|image)SearchQueries"\s*:\s*(?=\[)').finditer
_asks_store = re.compile(rb'"retrievalQueries"\s*:\s*\[\s*"').search
_map_chunk = re.compile(rb'"maps"\s*:\s*\{').search
_token_count = re.compile(rb'"token_count"\s*:\s*(\d{1,15})(?:\.0)?[\s,}]').finditer
_CARRIED_BYTES = 256
"""More than one member with its blanks: what a cut may have split is found with the next chunk."""


GENERATE = Dialect(
    source="https://ai.google.dev/api/generate-content",
    api="generate",
    operation=Operation.LLM,
    dialect="generate",
    reader=GenerateReader,
    usage=("usageMetadata",),
    model=("modelVersion",),
    id=("id", "responseId"),
    read=conventions.gemini,
    marks=(b"error", b'"finishReason"', _GROUNDING),
    prompt=("contents", "systemInstruction", "system_instruction"),
    prompt_json=("tools", "generationConfig"),
    text=("candidates.content",),
)
LIVE = replace(
    # BidiGenerateContent: what its setup says bounds every response.
    GENERATE,
    source="https://ai.google.dev/api/live",
    api="live",
    reader=LiveReader,
    marks=(b"error", _GROUNDING),
)
EMBED_CONTENT = Dialect(
    source="https://ai.google.dev/api/embeddings",
    api="embeddings",
    operation=Operation.EMBEDDING,
    reader=GenerateReader,
    usage=GENERATE.usage,
    model=GENERATE.model,
    id=GENERATE.id,
    read=conventions.embedded,
    inputs=("requests", "content"),
    prompt=("requests.content", "content"),
)
PREDICT = Dialect(
    source="https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api",
    api="embeddings",
    operation=Operation.EMBEDDING,
    reader=PredictReader,
    body_meter=PredictMeter,
    usage=(),
    inputs=("instances",),
    prompt=("instances",),
)
