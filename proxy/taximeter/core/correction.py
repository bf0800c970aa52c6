"""Corrections: records that change what an earlier one said, and nothing else. Pure."""

from __future__ import annotations

from taximeter.core.record import Record, Source


def correction(record: Record, difference_nusd: int, price_ref: str | None, *, first: bool = False) -> Record:
    """A record that changes the cost of a call and nothing else; it belongs to the same period, track and model.

    `first`: the call counted as one without a price until now. Only such a correction has an `input_source`.
    """
    return Record(
        kind="correction",
        request_id=record.request_id,
        attempt=record.attempt,
        line=record.line,
        started_at=record.started_at,
        ended_at=record.ended_at,
        workspace=record.workspace,
        track=record.track,
        document=record.document,
        task=record.task,
        end_user=record.end_user,
        key_id=record.key_id,
        upstream=record.upstream,
        provider=record.provider,
        api=record.api,
        operation=record.operation,
        request_model=record.request_model,
        response_model=record.response_model,
        service_tier=record.service_tier,
        outcome=record.outcome,
        input_source=Source.REPORTED if first else Source.NONE,
        cost_nusd=difference_nusd,
        price_ref=price_ref,
    )
