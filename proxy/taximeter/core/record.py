"""A call as a value, while it goes on and when it has ended.

`Record` is the one thing every sink, API and CLI verb is fed from; its names are the contract (DESIGN §3).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, cast

import msgspec

from taximeter.core.bounds import FOREVER_US, MAX_ATTEMPT, Bytes, Cost, Count, Milliseconds, Moment, Tag
from taximeter.core.usage import MAX_COUNT, MAX_SECONDS

SATURATED, IMPOSSIBLE, IN_PART = "saturated", "impossible_usage", "priced_in_part"
"""See `Record.cost_note`."""


class _Word(StrEnum):
    __hash__ = str.__hash__  # Enum's own is a Python function, and records are grouped by these


class Outcome(_Word):
    """How an attempt ended; exactly one each (DESIGN §2.4)."""

    OK = "ok"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_CUT = "upstream_cut"
    TIMEOUT = "timeout"
    CLIENT_LEFT = "client_left"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"


def outcome_of(status: int | None, *, left: bool) -> Outcome:
    """How an answer that came to its end ended, with this status; `left`: its client had gone."""
    if status is not None and status >= 400:
        return Outcome.UPSTREAM_ERROR
    return Outcome.CLIENT_LEFT if left else Outcome.OK


class Source(_Word):
    """Where a token figure comes from (DESIGN §2.4)."""

    REPORTED = "reported"
    COUNTED = "counted"
    ESTIMATED = "estimated"
    DEFERRED = "deferred"
    """It will be told later, by the object that the record's `deferred` names."""
    NONE = "none"


class Operation(_Word):
    LLM = "llm"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    OTHER = "other"


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One upstream attempt, settled. Counts are None where not known, never 0 for lack of knowledge."""

    event_id: str = ""
    """`<journal_id>:<seq>`; set by the journal."""
    kind: str = "usage"
    """`usage`, `told` (what another call was promised: core.deferred) or
    `correction` (a cost difference only; no request, no tokens; with an `input_source` where the call
    had no price before)."""
    request_id: Tag
    attempt: Annotated[int, msgspec.Meta(ge=1, le=MAX_ATTEMPT)] = 1
    started_at: Moment
    ended_at: Moment
    duration_ms: Milliseconds | None = None
    ttft_ms: Milliseconds | None = None
    """To the first part of a streamed answer; of another there is none: it comes as a whole."""
    overhead_us: Annotated[int, msgspec.Meta(ge=-(10**13), le=10**13)] | None = None
    workspace: Tag
    track: Tag | None = None
    document: Tag | None = None
    task: Tag | None = None
    end_user: Tag | None = None
    key_id: Tag | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    upstream: str
    provider: str
    api: str
    operation: Operation = Operation.OTHER
    stream: bool = False
    request_model: str | None = None
    response_model: str | None = None
    upstream_request_id: str | None = None
    service_tier: str | None = None
    speed: str | None = None
    region: str | None = None
    """Where the model ran, as far as a price may depend on it: Vertex' location, OpenAI's regional host, Anthropic's
    `inference_geo`."""
    status: Annotated[int, msgspec.Meta(ge=0, le=999)] | None = None
    outcome: Outcome
    partial: bool = False
    input_source: Source = Source.NONE
    output_source: Source = Source.NONE
    tokenizer: str | None = None
    input_tokens: Count | None = None
    cached_input_tokens: Count | None = None
    cache_write_input_tokens: Count | None = None
    cache_write_input_tokens_5m: Count | None = None
    cache_write_input_tokens_1h: Count | None = None
    audio_input_tokens: Count | None = None
    image_input_tokens: Count | None = None
    video_input_tokens: Count | None = None
    cached_audio_input_tokens: Count | None = None
    cached_image_input_tokens: Count | None = None
    output_tokens: Count | None = None
    reasoning_output_tokens: Count | None = None
    audio_output_tokens: Count | None = None
    image_output_tokens: Count | None = None
    video_output_tokens: Count | None = None
    accepted_prediction_tokens: Count | None = None
    rejected_prediction_tokens: Count | None = None
    total_tokens: Annotated[int, msgspec.Meta(ge=0, le=2 * MAX_COUNT)] | None = None
    search_units: Count | None = None
    rerank_documents: Count | None = None
    embedding_inputs: Count | None = None
    web_search_requests: Count | None = None
    file_search_requests: Count | None = None
    code_interpreter_sessions: Count | None = None
    maps_requests: Count | None = None
    image_generations: Count | None = None
    seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)] | None = None
    """Of audio."""
    images: Count | None = None
    input_characters: Count | None = None
    pages: Count | None = None
    annotated_pages: Count | None = None
    video_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)] | None = None
    media_size: str | None = None
    media_quality: str | None = None
    """What is billed by the piece: see `core.usage.Reading`."""
    inconsistent: bool = False
    cost_nusd: Cost | None = None
    """Integer nano-USD; None when unpriced."""
    price_ref: str | None = None
    unpriced_reason: str | None = None
    """Why a call that may have been billed has no cost: see `taximeter.core.prices.Why`."""
    deferred: str | None = None
    """The provider's id of the object by which this call is billed, later: its figures are null. Also in a record that
    tells of that object, and in one that settles the call (core.deferred)."""
    line: str | None = None
    """Of a record that tells or settles: which line of the object; "" the object itself."""
    object_state: str | None = None
    """Of a record that tells: how the object ended, as the provider calls it."""
    files: tuple[str, ...] = ()
    """Of a record that tells: files that hold the object's lines. Of a call: the file of results that it brought."""
    upstream_cost_nusd: Annotated[int, msgspec.Meta(ge=0, le=10**15)] | None = None
    request_bytes: Bytes = 0
    response_bytes: Bytes = 0
    error_code: str | None = None
    """Our stable error code where the outcome was ours (refused, unreachable, timeout, an idle client cut off)."""
    charged_tokens: Annotated[int, msgspec.Meta(ge=-(2**40), le=2**40)] | None = None
    """What its hard budgets are charged because it is not known what it used (budgets.charges); no usage. A
    correction has the difference."""
    charged_cost_nusd: Annotated[int, msgspec.Meta(ge=-(10**15), le=10**15)] | None = None
    charged_input_tokens: Annotated[int, msgspec.Meta(ge=-(2**40), le=2**40)] | None = None
    charged_output_tokens: Annotated[int, msgspec.Meta(ge=-(2**40), le=2**40)] | None = None
    charged_audio_ms: Annotated[int, msgspec.Meta(ge=-(2**40), le=2**40)] | None = None
    cost_note: str | None = None
    """`saturated`: it cost at least `cost_nusd`, MAX_COST_NUSD. No cost: `impossible_usage`, a figure that no call can
    have, or `priced_in_part`: some of it is at another price than the model's. What was told is in `usage`."""
    usage: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def measured(self) -> bool:
        """What is billed by the piece or by time is known."""
        return (
            self.seconds is not None
            or self.images is not None
            or self.input_characters is not None
            or self.pages is not None
            or self.video_seconds is not None
        )

    @property
    def model(self) -> str:
        """The served model where the upstream told it, else the one asked for, else `unknown`."""
        return self.response_model or self.request_model or "unknown"


class Open(Record, kw_only=True, omit_defaults=True):
    """A record while its call goes on: its `open` line says what is known when it is about to be sent; the same object,
    once it has ended, is its `close` line. What is not known yet is left out of either."""

    ended_at: Moment = -1
    outcome: Outcome = cast("Outcome", msgspec.UNSET)

    def again(self, started_at: int) -> Open:
        """The next attempt of the same request."""
        return Open(
            request_id=self.request_id,
            attempt=self.attempt + 1,
            started_at=started_at,
            workspace=self.workspace,
            track=self.track,
            document=self.document,
            task=self.task,
            end_user=self.end_user,
            key_id=self.key_id,
            tags=self.tags,
            upstream=self.upstream,
            provider=self.provider,
            api=self.api,
            operation=self.operation,
            stream=self.stream,
            request_model=self.request_model,
            request_bytes=self.request_bytes,
        )


def possible(at_us: int) -> int:
    """The moment that is nearest to this one, of those there are (µs since epoch)."""
    if 0 <= at_us < FOREVER_US:
        return at_us
    return 0 if at_us < 0 else FOREVER_US - 1


def seq_of(event_id: str) -> int:
    """The `seq` in an event id. Raises ValueError on anything else."""
    return int(event_id[event_id.rfind(":") + 1 :])
