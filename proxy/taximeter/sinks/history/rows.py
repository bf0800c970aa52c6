"""A record as a row of `usage_events` and back. Pure: no SQL, no I/O. Round trips exactly, but for over-long names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeVar

import msgspec

from taximeter.core.record import Operation, Outcome, Record, Source
from taximeter.sinks.cells import audio_ms, duration_us
from taximeter.sinks.history.schema import SEQ_BITS, events
from taximeter.sinks.query import SERIES

COLUMNS: tuple[str, ...] = tuple(column.name for column in events.columns)


class Detail(msgspec.Struct, omit_defaults=True):
    """The JSON column: fields of a record that nothing filters or sums by."""

    ttft_ms: float | None = None
    overhead_us: int | None = None
    duration_ms: float | None = None
    """Only where `duration_us` does not give it exactly."""
    tags: dict[str, str] = {}
    stream: bool = False
    upstream_request_id: str | None = None
    status: int | None = None
    partial: bool = False
    cache_write_input_tokens_5m: int | None = None
    cache_write_input_tokens_1h: int | None = None
    web_search_requests: int | None = None
    file_search_requests: int | None = None
    code_interpreter_sessions: int | None = None
    maps_requests: int | None = None
    image_generations: int | None = None
    video_input_tokens: int | None = None
    cached_audio_input_tokens: int | None = None
    cached_image_input_tokens: int | None = None
    image_output_tokens: int | None = None
    video_output_tokens: int | None = None
    images: int | None = None
    input_characters: int | None = None
    pages: int | None = None
    annotated_pages: int | None = None
    video_seconds: float | None = None
    media_size: str | None = None
    media_quality: str | None = None
    speed: str | None = None
    region: str | None = None
    unpriced_reason: str | None = None
    deferred: str | None = None
    line: str | None = None
    seconds: float | None = None
    inconsistent: bool = False
    upstream_cost_nusd: int | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    error_code: str | None = None
    charged_tokens: int | None = None
    charged_cost_nusd: int | None = None
    charged_input_tokens: int | None = None
    charged_output_tokens: int | None = None
    charged_audio_ms: int | None = None
    cost_note: str | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Detail).decode

Word = TypeVar("Word", Operation, Outcome, Source)

SeriesKey = tuple[str, str, str, str, str, str, str]
OriginKey = tuple[str, str, str, str, str, str]
SummaryKey = tuple[str, ...]
ClassKey = tuple[str, str, str, str, str, str]

TELLING = ("input_tokens", "output_tokens", "search_units", "audio_ms", "cost_nusd", "measured")
"""Whether these are known at all decides how a record counts. `measured` is not a figure's
name but whether the record is that, of those that are neither chat nor embedding nor rerank; of records before version
5 of the schema it is not told, and they count as they did."""

_KNOWN = tuple(",".join(name for bit, name in enumerate(TELLING) if flags >> bit & 1) for flags in range(64))


def series_key(record: Record) -> SeriesKey:
    """In the order of query.SERIES."""
    return (
        record.workspace,
        record.provider,
        record.model,
        record.task or "",
        record.operation._value_,  # `.value` is a slow descriptor, and this runs four times a record
        record.key_id or "",
        record.service_tier or "",
    )


@lru_cache(maxsize=10_000)
def summary_key(kept: tuple[str, ...], names: SeriesKey) -> SummaryKey:
    """In the order of `usage_summaries`: what is kept, then of query.SERIES the names kept and "" for the others."""
    return (",".join(kept), *(name if field in kept else "" for field, name in zip(SERIES, names, strict=True)))


def origin_key(record: Record) -> OriginKey:
    """In the order of schema.ORIGIN."""
    return (
        record.upstream,
        record.api,
        record.request_model or "",
        record.response_model or "",
        record.tokenizer or "",
        record.price_ref or "",
    )


def class_key(record: Record) -> ClassKey:
    """In the order of schema.CLASS."""
    known = (
        (record.input_tokens is not None)
        | (record.output_tokens is not None) << 1
        | (record.search_units is not None) << 2
        | (record.seconds is not None) << 3
        | (record.cost_nusd is not None) << 4
        | (record.operation is Operation.OTHER and record.measured) << 5
    )
    return (
        record.kind,
        record.outcome._value_,
        record.input_source._value_,
        record.output_source._value_,
        "first" if record.attempt == 1 else "later",
        _KNOWN[known],
    )


def event_id(journal_no: int, seq: int) -> int:
    """The integer key of a record."""
    return journal_no << SEQ_BITS | seq


def to_row(record: Record, key: int, series_no: int, origin_no: int, class_no: int) -> tuple[Any, ...]:
    """The values of COLUMNS."""
    micros = duration_us(record)
    detail = Detail(
        record.ttft_ms,
        record.overhead_us,
        None if micros is None or micros / 1_000 == record.duration_ms else record.duration_ms,
        record.tags,
        record.stream,
        record.upstream_request_id,
        record.status,
        record.partial,
        record.cache_write_input_tokens_5m,
        record.cache_write_input_tokens_1h,
        record.web_search_requests,
        record.file_search_requests,
        record.code_interpreter_sessions,
        record.maps_requests,
        record.image_generations,
        record.video_input_tokens,
        record.cached_audio_input_tokens,
        record.cached_image_input_tokens,
        record.image_output_tokens,
        record.video_output_tokens,
        record.images,
        record.input_characters,
        record.pages,
        record.annotated_pages,
        record.video_seconds,
        record.media_size,
        record.media_quality,
        record.speed,
        record.region,
        record.unpriced_reason,
        record.deferred,
        record.line,
        record.seconds,
        record.inconsistent,
        record.upstream_cost_nusd,
        record.request_bytes,
        record.response_bytes,
        record.error_code,
        record.charged_tokens,
        record.charged_cost_nusd,
        record.charged_input_tokens,
        record.charged_output_tokens,
        record.charged_audio_ms,
        record.cost_note,
        record.usage,
    )
    return (
        key,
        record.ended_at,
        record.started_at,
        series_no,
        origin_no,
        class_no,
        record.request_id,
        record.attempt,
        record.track,
        record.document,
        record.end_user,
        micros,
        record.input_tokens,
        record.cached_input_tokens,
        record.cache_write_input_tokens,
        record.output_tokens,
        record.reasoning_output_tokens,
        record.total_tokens,
        record.audio_input_tokens,
        record.image_input_tokens,
        record.audio_output_tokens,
        record.accepted_prediction_tokens,
        record.rejected_prediction_tokens,
        record.search_units,
        record.embedding_inputs,
        record.rerank_documents,
        audio_ms(record),
        record.cost_nusd,
        _encode(detail).decode(errors="replace"),  # `usage` is as the provider sent it, which need not be UTF-8
    )


def charge_row(record: Record, key: int) -> dict[str, Any]:
    """The row of `usage_charges` of a record that changes what budgets are charged."""
    return {
        "id": key,
        "ended_at": record.ended_at,
        "workspace": record.workspace,
        "key_id": record.key_id or "",
        "task": record.task or "",
        "request_id": record.request_id,
        # A settlement is the next attempt, and lets go what the one before it was charged.
        "attempt": record.attempt - (record.deferred is not None and record.line is not None),
        "charged_tokens": record.charged_tokens or 0,
        "charged_cost_nusd": record.charged_cost_nusd or 0,
    }


_SAME_NAME = tuple(name for name in COLUMNS if name in Record.__struct_fields__)
_same = itemgetter(*(COLUMNS.index(name) for name in _SAME_NAME))
_ID, _DURATION, _DETAIL = COLUMNS.index("id"), COLUMNS.index("duration_us"), COLUMNS.index("detail")
_SEQ = (1 << SEQ_BITS) - 1


def to_record(row: Sequence[Any]) -> Record:
    """The record of a row: COLUMNS, its journal's id, then the names of its series, origin and class."""
    (
        journal_id, workspace, provider, _, task, operation, key_id, service_tier,
        upstream, api, request_model, response_model, tokenizer, price_ref,
        kind, outcome, input_source, output_source, _, _,
    ) = row[len(COLUMNS) :]  # fmt: skip
    fields = dict(zip(_SAME_NAME, _same(row), strict=True))
    fields |= msgspec.structs.asdict(_detail(row[_DETAIL]))
    if fields["duration_ms"] is None and row[_DURATION] is not None:
        fields["duration_ms"] = row[_DURATION] / 1_000
    return Record(
        event_id=f"{journal_id}:{row[_ID] & _SEQ}",
        workspace=workspace,
        provider=provider,
        task=task or None,
        operation=word(Operation, operation, Operation.OTHER),
        key_id=key_id or None,
        service_tier=service_tier or None,
        upstream=upstream,
        api=api,
        request_model=request_model or None,
        response_model=response_model or None,
        tokenizer=tokenizer or None,
        price_ref=price_ref or None,
        kind=kind,
        outcome=word(Outcome, outcome, Outcome.INTERRUPTED),
        input_source=word(Source, input_source, Source.ESTIMATED),
        output_source=word(Source, output_source, Source.ESTIMATED),
        **fields,
    )


def _detail(text: str) -> Detail:
    """The JSON column; where somebody has written there what is none, what it told is not known. Others are shown."""
    try:
        return _decode(text)
    except (ValueError, TypeError, RecursionError):
        return Detail(inconsistent=True)


def word(words: type[Word], text: str, otherwise: Word) -> Word:
    """A word of ours, or what stands for one that a newer version may have written."""
    try:
        return words(text)
    except ValueError:
        return otherwise
