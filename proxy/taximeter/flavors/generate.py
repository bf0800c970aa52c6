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

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.framing.body import BodyMeter
from taximeter.flavors.json_flavor import JsonFlavor, RequestMembers
from taximeter.flavors.meter import Answer, Countable, Meter, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.usage.counts import Fields, Members, added, count, fields, first, items, short_text, text
from taximeter.flavors.usage.openai import cost_nusd
from taximeter.flavors.usage.reader import UsageReader, Verdict
from taximeter.flavors.usage.usual import USAGE_RAW_BYTES, parts_exceed

_IMAGE, _AUDIO = ("IMAGE", 2), ("AUDIO", 4)
"""Modalities by name or by enum number (Vertex sends either)."""

_TRAFFIC_TIERS = {
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
    "PROVISIONED_THROUGHPUT": "provisioned",
}
"""Vertex' `trafficType` where it is not the plain tier."""


def read(usage: Fields) -> Reading:
    """`usageMetadata` in our convention."""
    prompt = first(usage, "promptTokenCount")
    tool = first(usage, "toolUsePromptTokenCount")
    written = first(usage, "candidatesTokenCount", "responseTokenCount")
    thoughts = first(usage, "thoughtsTokenCount")
    total = first(usage, "totalTokenCount")
    if total is not None and prompt is not None and written is None:
        written = max(total - prompt - (tool or 0) - (thoughts or 0), 0)
    elif total is not None and prompt is None and written is not None:
        prompt = max(total - written - (tool or 0) - (thoughts or 0), 0)
    seen = (*items(usage.get("promptTokensDetails")), *items(usage.get("promptTokenDetails")))
    seen += tuple(items(usage.get("toolUsePromptTokensDetails")))
    reading = Reading(
        input_tokens=added(prompt, tool),
        cached_input_tokens=first(usage, "cachedContentTokenCount"),
        audio_input_tokens=_modality(seen, _AUDIO),
        image_input_tokens=_modality(seen, _IMAGE),
        output_tokens=added(written, thoughts),
        reasoning_output_tokens=thoughts,
        audio_output_tokens=_modality(items(usage.get("candidatesTokensDetails")), _AUDIO),
        service_tier=text(usage.get("serviceTier")) or _TRAFFIC_TIERS.get(str(usage.get("trafficType"))),
        upstream_cost_nusd=cost_nusd(usage),
    )
    if total is not None and reading.input_tokens is not None and reading.output_tokens is not None:
        reading.inconsistent = total != reading.input_tokens + reading.output_tokens
    reading.inconsistent = reading.inconsistent or parts_exceed(reading)
    return reading


class GenerateReader(UsageReader):
    """Generated content, whole, in events or in an array."""

    usage_keys = ("usageMetadata",)
    model_keys = ("modelVersion",)
    watched = ((b'"usageMetadata"', b'"usageMetadata":null'),)
    marks = (b"error", b'"finishReason"')

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        verdict = super().take(found)
        if self.id is None and "responseId" in found:
            self.id = short_text(found["responseId"])
        return verdict

    def report(self, usage: Fields, raw: bytes) -> None:
        if any(name.endswith("TokenCount") and count(value) is not None for name, value in usage.items()):
            self.usage = usage if len(raw) <= USAGE_RAW_BYTES else {}
            self.keep_raw(raw)

    def convert(self) -> Reading:
        return read(self.usage)

    def output_text(self, event: Fields) -> Iterable[str]:
        return extract.texts_in([fields(one).get("content") for one in items(event.get("candidates"))])


class PredictReader(UsageReader):
    """Vertex' text embeddings: each prediction carries its own `token_count`, so they are summed."""

    usage_keys = ()

    __slots__ = ("_carried",)

    def __init__(self, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(prepared, answer, provider)
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

    def __init__(self, reader: PredictReader) -> None:
        super().__init__(reader)
        self._scan = reader.scan

    def feed(self, chunk: bytes) -> bytes:
        """See `Meter.feed`: always the very same chunk."""
        self._scan(chunk)
        return super().feed(chunk)


_token_count = re.compile(rb'"token_count"\s*:\s*(\d{1,15})(?:\.0)?[\s,}]').finditer
_CARRIED_BYTES = 256
"""More than one member with its blanks: what a cut may have split is found with the next chunk."""


def _modality(details: Iterable[object], wanted: tuple[str, int]) -> int | None:
    """Tokens of one modality; None where none is listed."""
    return added(*(count(one.get("tokenCount")) for one in map(fields, details) if one.get("modality") in wanted))


class Generate(JsonFlavor):
    """Flavor of `:generateContent` and `:streamGenerateContent`."""

    api = "generate"
    operation = Operation.LLM
    reader = GenerateReader

    def path_streams(self, path: bytes) -> bool:
        return b":stream" in path.lower()

    def input(self, body: bytes) -> Countable:
        return extract.input_of(
            body, "contents", "systemInstruction", "system_instruction", structured=("tools", "generationConfig")
        )


class EmbedContent(JsonFlavor):
    """Flavor of `:embedContent` and `:batchEmbedContents`."""

    api = "embeddings"
    operation = Operation.EMBEDDING
    reader = GenerateReader

    def add_to(self, prepared: Prepared, found: RequestMembers, *, inject: bool) -> None:
        asked = extract.request(prepared.body)
        prepared.embedding_inputs = len(items(asked.get("requests"))) or (1 if "content" in asked else None)

    def input(self, body: bytes) -> Countable:
        asked = extract.request(body)
        walk = extract.TextWalk()
        for request in (*items(asked.get("requests")), asked):
            walk.take(fields(request).get("content"))
        countable = walk.countable()
        countable.truncated = countable.truncated or not walk.texts
        return countable


class Predict(JsonFlavor):
    """Flavor of Vertex' `:predict` for text embeddings."""

    api = "embeddings"
    operation = Operation.EMBEDDING
    reader = PredictReader

    def framing(self, reader: UsageReader, prepared: Prepared, answer: Answer, *, strip: bool) -> Meter:
        return (
            PredictMeter(reader)
            if isinstance(reader, PredictReader)
            else super().framing(reader, prepared, answer, strip=strip)
        )

    def add_to(self, prepared: Prepared, found: RequestMembers, *, inject: bool) -> None:
        prepared.embedding_inputs = len(items(extract.request(prepared.body).get("instances"))) or None

    def input(self, body: bytes) -> Countable:
        return extract.input_of(body, "instances")


GENERATE = Generate()
EMBED_CONTENT = EmbedContent()
PREDICT = Predict()
