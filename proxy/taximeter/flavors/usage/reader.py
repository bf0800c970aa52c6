"""What one answer's events and bodies add up to: the part of a meter that knows JSON but no framing.

A `UsageReader` is fed whole JSON objects (one per stream event, or the one body) and keeps the usage members it finds.
A row says where they are; a later figure replaces an earlier one, nothing is ever summed unless a subclass says so. It
must not know HTTP or how events are framed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import ClassVar

import msgspec

from taximeter.core.usage import Reading, believable
from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.usage.counts import (
    Fields,
    Members,
    count,
    decode,
    encode,
    fields,
    header_count,
    members,
    raw_text,
    short_text,
    usd_to_nusd,
)
from taximeter.flavors.usage.row import Row
from taximeter.flavors.usage.usual import COST_HEADER, USAGE_RAW_BYTES, one_line, request_id

MERGED_MEMBERS = 128
"""Most members several usage objects may add up to; then the last one stands alone. Real ones have 20."""

_ENVELOPE_DEPTH = 3
_SALVAGE_TRIES = 16
_texts = re.compile(
    rb'"(?:content|text|reasoning|reasoning_content|thinking|arguments|refusal)"\s*:\s*("(?:[^"\\]|\\.)*")'
)
_ended = re.compile(
    rb'"(?:finish_reason|stop_reason|finishReason|completionReason)"\s*:\s*"(?!(?i:not_finished|null"))'
).search
_ZEROS = (0, 0.0)
_TOTALS = ("total_tokens", "totalTokens", "totalTokenCount")
_WHOLES = (
    "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "inputTokens", "outputTokens",
    "promptTokenCount", "candidatesTokenCount",
)  # fmt: skip
"""What a total adds up."""
_scan_json = json.JSONDecoder().raw_decode


class Verdict(Enum):
    """What an event was."""

    TAKEN = 0
    UNREADABLE = 1
    """No JSON object (yet): the first of several `data:` lines, or garbage."""
    USAGE_ONLY = 2
    """Nothing but usage: the event `stream_options.include_usage` asks for."""


class UsageReader:
    """Reads what one answer used by its dialect's row; subclasses, where an API needs more than names."""

    beside: ClassVar[tuple[str, ...]] = ()
    """Members, beside the row's, that hold an object which a subclass reads."""

    __slots__ = (
        "_documents", "_inputs", "answer", "failed", "finished", "id", "model", "provider", "raw", "row", "terminal",
        "tier", "usage",
    )  # fmt: skip

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        self.row = row
        self.answer = answer
        self._inputs = prepared.embedding_inputs
        self._documents = prepared.rerank_documents
        self.provider = provider
        self.terminal = False
        self.finished = False
        self.failed = False
        self.model: str | None = None
        self.id: str | None = None
        self.tier: str | None = None
        self.usage: Fields = {}
        """The usage members known so far, by their own names."""
        self.raw: bytes = b""
        """The last usage object as it came."""

    # -- fed by a meter

    def skippable(self, chunk: bytes) -> bool:
        """True where a stream chunk surely holds nothing to be read: none of the watched members, other than as null,
        and no mark; a few hundred nanoseconds."""
        row = self.row
        for key, null, spaced_null in row.watched:
            seen = chunk.count(key)
            if seen and seen != chunk.count(null) and seen != chunk.count(spaced_null):
                return False
        for mark in row.marks:  # noqa: SIM110  a generator here doubles the cost of a chunk
            if mark in chunk:
                return False
        return True

    def event(self, data: bytes, name: bytes = b"") -> Verdict:
        """One stream event's payload. `name` is its SSE event name, b"" where there was none."""
        if data.strip() == b"[DONE]":
            self.terminal = self.finished = True
            return Verdict.TAKEN
        found = members(data)
        if found is None:
            return Verdict.UNREADABLE
        if name == b"error":
            self.failed = True
        if not self.finished and _ended(data):
            self.finished = True
        return self.take(found)

    def whole(self, body: bytes) -> None:
        """A whole unary body: one object, or an array of them (Gemini without `alt=sse`, TGI)."""
        found = members(body)
        if found is not None:
            self.take(found)
            self.finished = True
            return
        parts = _array(body)
        if parts is None:
            self.read_in_part(body, b"")
            return
        for part in parts:
            inner = members(part)
            if inner is not None:
                self.take(inner)
        self.finished = True

    def names(self) -> tuple[str, ...]:
        """The members that are looked for in a body that is too long to be kept."""
        row = self.row
        return (*row.usage, *row.flat, *row.model, *row.id, *row.kind, *self.beside, "service_tier")

    def read_in_part(self, head: bytes, tail: bytes, passed: Mapping[str, bytes] | None = None) -> None:
        """An object of which not all is there: too long to be kept, or cut off. `passed`: what of its members was seen
        as it passed, each followed by whatever stands behind it; others are looked for in its ends."""
        found: Members = {}
        for name, piece in (passed or {}).items():
            value = value_of(piece)
            if value is not None:
                found[name] = value
        for name in (*self.row.usage, *self.row.model, *self.row.kind, *self.beside, "service_tier"):
            if name not in found and (raw := self._salvage(head, tail, name)) is not None:
                found[name] = raw
        self.take(found)

    # -- what a flavor may replace

    def passing(self, piece: bytes) -> None:
        """A piece of a body that is too long to be kept, for what stands deep in it."""

    def event_in_part(self, head: bytes, tail: bytes) -> None:
        """A stream's event of which only the ends were kept."""
        self.read_in_part(head, tail)

    def take(self, found: Members) -> Verdict:
        """Read one object's members, and its envelopes'."""
        row = self.row
        for key in row.kind:
            if key in found:
                self.kind(raw_text(found[key]) or "")
        flat: Fields = {name: decode(found[name]) for name in row.flat if name in found}
        if flat:
            self.report(flat, b"")
        if row.done and row.done in found and bytes(found[row.done]) == b"true":
            self.terminal = self.finished = True
        self._look(found, 0)
        return Verdict.TAKEN

    def kind(self, kind: str) -> None:
        """The event's own type."""
        if kind in self.row.ends:
            self.terminal = self.finished = True
        if kind in self.row.fails:
            self.failed = True

    def report(self, usage: Fields, raw: bytes) -> None:
        """A usage object: its members replace earlier ones of the same name; null says nothing, nor does a 0 where
        there was a count before (gateways send an empty object last, or repeat a member they do not know as 0)."""
        known = {key: value for key, value in usage.items() if value is not None}
        if not known:
            return
        if len(raw) > USAGE_RAW_BYTES:
            known = {key: value for key, value in known.items() if isinstance(value, int | float)}
        kept = kept_counts(self.usage, known)
        merged = {**self.usage, **known, **kept} if 0 < len(self.usage) < MERGED_MEMBERS else known
        self.usage = merged
        self.keep_raw(raw if len(merged) == len(known) and not kept else b"")

    def keep_raw(self, raw: bytes) -> None:
        """Keep the last usage object as it came; b"" where it holds only a part of what is known."""
        self.raw = one_line(raw) if len(raw) <= USAGE_RAW_BYTES else b""

    def convert(self) -> Reading:
        """The usage so far in our convention."""
        reading = self.row.read(self.usage, self.provider, self.model)
        for header, figure in self.row.heads:
            if getattr(reading, figure) is None:
                setattr(reading, figure, header_count(self.answer.value_of(header)))
        return reading

    def output_text(self, event: Fields) -> Iterable[str]:
        """The text the model wrote in one event or body, for local counting."""
        row = self.row
        if row.text_kinds and event.get(row.kind[0], row.text_kinds[0]) not in row.text_kinds:
            return ()
        return extract.texts_at(event, row.text)

    # -- read by a meter

    def salvaged_text(self, head: bytes, tail: bytes) -> list[str]:
        """Text in a body that is not whole: every string member with one of the names text goes by."""
        found = [match.group(1) for part in (head, tail) for match in _texts.finditer(part)]
        return [text for raw in found if isinstance(text := decode(raw), str) and text]

    def reading(self) -> Reading:
        """The usage as far as known, with what is known about the answer."""
        reading = self.convert()
        reading.bare = reading.plain = False  # what follows adds to it
        reading.response_model = self.model
        reading.upstream_request_id = self.id
        reading.service_tier = reading.service_tier or self.tier
        self._heads(reading)
        reading.embedding_inputs = self._inputs
        reading.rerank_documents = self._documents
        reading.failed = self.failed
        reading.finished = self.finished
        reading.usage = self.usage_raw()
        return believable(reading)

    def _heads(self, reading: Reading) -> None:
        """What an answer's head tells beside its body: the provider's id for the call, a gateway's cost."""
        headers = self.answer.headers
        reading.upstream_request_id = request_id(headers) or reading.upstream_request_id
        if reading.upstream_cost_nusd is None:
            cost = self.answer.value_of(COST_HEADER)
            reading.upstream_cost_nusd = usd_to_nusd(cost[:40].decode("latin-1")) if cost else None

    def usage_raw(self) -> msgspec.Raw:
        """As it came where the last object holds all that is known, else what several objects add up to."""
        if not self.usage:
            return msgspec.Raw(b"null")
        raw = self.raw or encode(self.usage)
        return msgspec.Raw(raw if len(raw) <= USAGE_RAW_BYTES else b"null")

    def _look(self, found: Members, depth: int) -> None:
        if self.model is None:
            for key in self.row.model:
                self.model = self.model or short_text(found.get(key))
        if self.id is None:
            for key in self.row.id:
                self.id = self.id or short_text(found.get(key))
        if "service_tier" in found:
            self.tier = short_text(found["service_tier"]) or self.tier
        if "error" in found and decode(found["error"]):
            self.failed = True
        for key in self.row.usage:
            if key in found:
                self._report(found[key])
        if depth < _ENVELOPE_DEPTH:
            for envelope in self.row.envelopes:
                inner = members(found[envelope]) if envelope in found else None
                if inner:
                    self._look(inner, depth + 1)

    def _report(self, raw: msgspec.Raw) -> None:
        usage = fields(decode(raw))
        if usage:
            self.report(usage, bytes(raw))

    def _salvage(self, head: bytes, tail: bytes, name: str) -> msgspec.Raw | None:
        """The value of member `name`, found by its name: the last one in the tail, else the first in the head.

        Quotes inside JSON strings are escaped, so the pattern cannot match in a text.
        """
        wants_object = name in self.row.usage or name in self.beside
        pattern = re.compile(
            rb'"' + re.escape(name).encode() + rb'"\s*:\s*(?=' + (rb"\{" if wants_object else rb'"') + rb")"
        )
        places = [(tail, match.end()) for match in pattern.finditer(tail)][::-1]
        fore = [(head, match.end()) for match in pattern.finditer(head)]
        # while nothing is lost everything is head, and the last usage object is the final one
        places += fore[::-1] if wants_object and not tail else fore
        if not wants_object:
            places = fore + places
        for source, start in places[:_SALVAGE_TRIES]:
            value = value_of(source[start : start + USAGE_RAW_BYTES])
            if value is not None:
                return value
        return None


def value_of(piece: bytes) -> msgspec.Raw | None:
    """The JSON value at the start of a piece, unless it says nothing (null, an empty object) or is cut."""
    try:
        end = _scan_json(piece.decode("latin-1"))[1]
    except (ValueError, RecursionError):
        return None
    return msgspec.Raw(piece[:end]) if decode(piece[:end]) else None


def kept_counts(earlier: Fields, later: Fields) -> Fields:
    """The earlier figures that zeros would erase, and the total they are part of."""
    kept = _kept(earlier, later)
    for name in _TOTALS if kept else ():
        told = count(later.get(name))
        if told is None:
            continue
        others = sum(count(later.get(whole)) or 0 for whole in _WHOLES)
        missed = sum(count(kept.get(whole)) or 0 for whole in _WHOLES)
        if told == 0:
            kept[name] = None if others else earlier.get(name)
        elif told != others + missed:
            kept[name] = told + missed  # it was of the later figures alone
    return kept


def _kept(earlier: Fields, later: Fields) -> Fields:
    kept: Fields = {}
    for name, value in later.items():
        before = earlier.get(name) if name not in _TOTALS else None
        if isinstance(before, dict) and isinstance(value, dict):
            inner = _kept(before, value)
            if inner:
                kept[name] = {**value, **inner}
        elif before and value in _ZEROS and not isinstance(before, bool | str | list):
            kept[name] = before
    return kept


def _array(body: bytes) -> list[msgspec.Raw] | None:
    try:
        return _array_decoder.decode(body)
    except (ValueError, RecursionError):
        return None


_array_decoder = msgspec.json.Decoder(list[msgspec.Raw])
