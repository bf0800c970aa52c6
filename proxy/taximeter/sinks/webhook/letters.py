"""What is sent to a billing backend, as values: bodies, keys, signature, and when to try again. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import msgspec

from taximeter.budgets.tally import DIMENSIONS
from taximeter.budgets.thresholds import ThresholdReached
from taximeter.core import views
from taximeter.core.record import Record
from taximeter.core.views import Metrics, ModelSums
from taximeter.sinks.cells import empty, merge, split

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 900.0
"""Back-off after a failure, doubled each time: with 20 attempts a letter is tried for about two hours and a half."""

CONTENT_TYPES = {
    "segment": "application/json",
    "event": "application/cloudevents+json",
    "events": "application/cloudevents-batch+json",
}
"""By kind of letter; `events` is what `together` makes."""


class Segment(msgspec.Struct, kw_only=True):
    """The body of a segment: what a track used since the one before. Receivers add segments."""

    track_id: str
    workspace: str
    segment: int
    """1, 2, 3 … of this track on this node."""
    metrics: Metrics


class Letter(msgspec.Struct, kw_only=True):
    """Something to be delivered; body and key are the same at every attempt."""

    key: str
    kind: str
    workspace: str
    track: str | None
    body: str
    created_at: int
    attempts: int
    next_at: int
    dead: bool
    problem: str


def in_batches(claimed: Sequence[Letter], size: int) -> list[Sequence[Letter]]:
    """Letters by the request they go in: events up to `size` together, a segment always alone."""
    events = [letter for letter in claimed if letter.kind == "event"]
    alone = [[letter] for letter in claimed if letter.kind != "event"]
    return [*alone, *(events[start : start + size] for start in range(0, len(events), size))]


def together(parts: Sequence[Letter]) -> Letter:
    """Events as one request: a batch of CloudEvents in JSON (CloudEvents 1.0, JSON format, section 4).

    Receivers tell events apart by their own `source` and `id`; the key is the same for the same events.
    """
    keys = "\n".join(part.key for part in parts)
    return msgspec.structs.replace(
        parts[0],
        key=f"batch:{blake2b(keys.encode(), digest_size=16).hexdigest()}",
        kind="events",
        body=f"[{','.join(part.body for part in parts)}]",
    )


class Part(msgspec.Struct, frozen=True):
    """What one operation of one model adds to a segment; `cell` is in the order of history.cells.FIELDS."""

    operation: str
    model: str
    cell: Sequence[int]


_encode = msgspec.json.Encoder(decimal_format="number").encode


def segment_key(node: str, workspace: str, track: str, segment: int) -> str:
    """The Idempotency-Key of a segment."""
    return f"{node}:{workspace}:{track}:{segment}"


def segment_body(workspace: str, track: str, segment: int, parts: Iterable[Part]) -> str:
    """The JSON of a segment, `metrics` as `GET /usage/tracks/{track}` shows them: LLM calls only."""
    cell, models = empty(), []
    for part in parts:
        if part.operation == "llm":
            merge(cell, part.cell)
            models.append(ModelSums("llm", part.model, split(part.cell)[0]))
    totals, details = split(cell)
    return _encode(
        Segment(
            track_id=track,
            workspace=workspace,
            segment=segment,
            metrics=views.metrics(totals, details, views.main_model(models, "llm")),
        )
    ).decode()


def event_body(record: Record, node: str) -> str:
    """A record as a CloudEvent (1.0, structured JSON); `data` is the record with its names of DESIGN §3."""
    return event(
        id=record.event_id,
        kind="taximeter.usage.corrected" if record.kind == "correction" else "taximeter.usage.recorded",
        node=node,
        subject=record.workspace,
        at_us=record.ended_at,
        data=msgspec.structs.asdict(record),
    )


def threshold_body(reached: ThresholdReached, node: str) -> str:
    """A CloudEvent that says that so much of a budget is used; amounts as they are counted: USD in nano-USD, seconds in
    milliseconds."""
    budget, allowance = reached.allowance.budget, reached.allowance
    scope = dict.fromkeys(DIMENSIONS) | {
        name: value for (name, _), value in zip(budget.tally.scope, allowance.values, strict=True)
    }
    told = {name: getattr(budget, name) for name in ("id", "workspace", "unit", "limit", "mode")}
    return event(
        id=reached.key,
        kind="taximeter.budget.threshold",
        node=node,
        subject=budget.workspace,
        at_us=reached.at_us,
        data={
            **told,
            **scope,
            "percent": reached.percent,
            "period": reached.period,
            "spent": reached.spent,
            "charged": reached.charged,
        },
    )


def event(*, id: str, kind: str, node: str, subject: str, at_us: int, data: object) -> str:
    """A CloudEvent as JSON text. `at_us`: µs since epoch."""
    envelope: dict[str, Any] = {
        "specversion": "1.0",
        "id": id,
        "source": f"urn:taximeter:{node}",
        "type": kind,
        "subject": subject,
        "time": datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data,
    }
    return _encode(envelope).decode()


def signature(secret: str, timestamp_s: int, body: bytes) -> str:
    """The value of `X-Taximeter-Signature`: `t=<seconds>,v1=<hex HMAC-SHA256 of "<seconds>.<body>">`."""
    signed = hmac.digest(secret.encode(), b"%d." % timestamp_s + body, "sha256").hex()
    return f"t={timestamp_s},v1={signed}"


def wait_s(attempts: int, random: float, retry_after_s: float = 0.0) -> float:
    """How long to wait after the n-th failure: doubled each time, of which half to all; at least what was asked for.

    `random`: 0 to 1. `retry_after_s`: the receiver's own word, believed up to LONGEST_WAIT_S.
    """
    longest: float = min(LONGEST_WAIT_S, FIRST_WAIT_S * (1 << min(attempts - 1, 16)))
    return max(longest * (0.5 + random / 2), min(retry_after_s, LONGEST_WAIT_S))
