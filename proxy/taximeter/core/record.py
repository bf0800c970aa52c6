"""The journal's lines as values: what is written when a call opens, ticks and closes.

`Record` is the one thing every sink, API and CLI verb is fed from; its names are the contract (DESIGN §3).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

SCHEMA = 1


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


class Source(_Word):
    """Where a token figure comes from (DESIGN §2.4)."""

    REPORTED = "reported"
    COUNTED = "counted"
    ESTIMATED = "estimated"
    NONE = "none"


class Operation(_Word):
    LLM = "llm"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    OTHER = "other"


class Header(msgspec.Struct, kw_only=True):
    """First line of a journal file."""

    schema: int
    journal_id: str
    node: str
    worker: str
    started_at: int
    """µs since epoch, UTC, as every time in the journal."""


class Open(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A call that is about to be sent upstream."""

    request_id: str
    attempt: int = 1
    started_at: int
    workspace: str
    track: str | None = None
    document: str | None = None
    task: str | None = None
    end_user: str | None = None
    key_id: str | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    upstream: str
    provider: str
    api: str
    operation: Operation = Operation.OTHER
    stream: bool = False
    request_model: str | None = None
    request_bytes: int = 0


class Tick(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A long stream's progress: what is known should the worker die now."""

    request_id: str
    attempt: int = 1
    at: int
    response_bytes: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    bound_tokens: int | None = None
    """The most it may use, held of its hard budgets. Only a call that has such a tick may have been sent under one."""
    bound_cost_nusd: int | None = None


class End(msgspec.Struct, kw_only=True):
    """Last line of a journal file: nothing is open, nothing will follow."""

    seq: int
    at: int


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One upstream attempt, settled. Counts are None where not known, never 0 for lack of knowledge."""

    event_id: str = ""
    """`<journal_id>:<seq>`; set by the journal."""
    kind: str = "usage"
    """`usage` or `correction` (a cost difference only; no request, no tokens)."""
    request_id: str
    attempt: int = 1
    started_at: int
    ended_at: int
    duration_ms: float | None = None
    ttft_ms: float | None = None
    overhead_us: int | None = None
    workspace: str
    track: str | None = None
    document: str | None = None
    task: str | None = None
    end_user: str | None = None
    key_id: str | None = None
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
    status: int | None = None
    outcome: Outcome
    partial: bool = False
    input_source: Source = Source.NONE
    output_source: Source = Source.NONE
    tokenizer: str | None = None
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_write_input_tokens_5m: int | None = None
    cache_write_input_tokens_1h: int | None = None
    audio_input_tokens: int | None = None
    image_input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    audio_output_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None
    total_tokens: int | None = None
    search_units: int | None = None
    rerank_documents: int | None = None
    embedding_inputs: int | None = None
    web_search_requests: int | None = None
    seconds: float | None = None
    inconsistent: bool = False
    cost_nusd: int | None = None
    """Integer nano-USD; None when unpriced."""
    price_ref: str | None = None
    upstream_cost_nusd: int | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    error_code: str | None = None
    """Our stable error code where the outcome was ours (refused, unreachable, timeout)."""
    charged_tokens: int | None = None
    """What its hard budgets are charged because it is not known what it used (core.charges); no usage. A correction has
    the difference."""
    charged_cost_nusd: int | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def model(self) -> str:
        """The served model where the upstream told it, else the one asked for, else `unknown`."""
        return self.response_model or self.request_model or "unknown"


class Line(msgspec.Struct, omit_defaults=True):
    """Any journal line: exactly one member is set."""

    journal: Header | None = None
    open: Open | None = None
    tick: Tick | None = None
    close: Record | None = None
    end: End | None = None


BUDGETS = "budgets"
"""Member of `tags` of a call that reserved a part of hard budgets: their ids, with commas."""


def reservation_of(call: Open | Record) -> str:
    """The name under which a call holds a part of its budgets."""
    return f"{call.request_id}#{call.attempt}"


def seq_of(event_id: str) -> int:
    """The `seq` in an event id. Raises ValueError on anything else."""
    return int(event_id.rpartition(":")[2])
