"""What is answered now and billed later: who told what of it, and the record by which the call is settled. Pure.

A call that only got a promise has the object's id in `deferred`. Whatever passes later and tells of that object is a
record of kind TOLD, which counts nowhere; history lets one of those that tell the same become a settlement.
"""

from __future__ import annotations

from msgspec.structs import replace

from taximeter.core.record import BUDGETS, Outcome, Record

TOLD = "told"
"""Kind of a record that says what a promised object, or a line of it, used. No call, no sums."""
FILE = "file:"
"""How `deferred` begins where a file told it: which object the file's lines are of, that object says (`files`)."""
EVALS = "evals"
"""The API whose lines are not of a batch, but the models of one run: https://platform.openai.com/docs/guides/evals."""
BATCH = "batch"
"""The service tier of what is done in a batch."""


def settlement(asked: Record, told: Record) -> Record:
    """The record by which a call is settled, or a line of it: what `told` says was used, for whom `asked` asked.

    It is an attempt of the same request, so no second request, and belongs to the period in which was asked, as
    corrections do. Where nothing was used (it failed; a batch, whose lines tell) it is a correction, which adds
    nothing. Without a price yet. With the object itself (no `line`) goes what budgets were charged for it.
    """
    of_line, used = bool(told.line), told.outcome is Outcome.OK
    settled = replace(
        told,
        event_id="",
        kind="usage" if used else "correction",
        outcome=Outcome.OK if used else asked.outcome,
        request_id=asked.request_id,
        attempt=asked.attempt + 1,
        started_at=asked.started_at,
        ended_at=asked.ended_at,
        duration_ms=None,
        ttft_ms=None,
        overhead_us=None,
        workspace=asked.workspace,
        track=asked.track,
        document=asked.document,
        task=asked.task,
        end_user=asked.end_user,
        key_id=asked.key_id,
        tags={BUDGETS: asked.tags[BUDGETS]} if BUDGETS in asked.tags else {},
        upstream=asked.upstream,
        provider=asked.provider,
        request_model=asked.request_model or told.response_model,
        region=told.region or asked.region,
        service_tier=BATCH if of_line and told.api != EVALS else told.service_tier,
        deferred=asked.deferred,
        object_state=None,
        files=(),
        request_bytes=0,
        response_bytes=0,
    )
    return settled if of_line else replace(settled, **_charge(asked))


def _charge(asked: Record) -> dict[str, int | None]:
    """What budgets were charged, taken back."""
    names = (
        "charged_tokens", "charged_cost_nusd", "charged_input_tokens", "charged_output_tokens", "charged_audio_ms",
    )  # fmt: skip
    charged = {name: getattr(asked, name) for name in names}
    return {name: None if amount is None else -amount for name, amount in charged.items()}
